"""The parts that pages are made of: each takes the page's `View`, asks `compute` for results and shows a figure."""
