"""The live explorer: curves of one row, sampled in Python, drawn and dragged in the browser."""
