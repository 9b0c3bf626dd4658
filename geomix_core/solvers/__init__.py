"""Solvers over whole batches: a row's answer never depends on the other rows."""
