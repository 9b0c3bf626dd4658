"""Results of geomix_core as Plotly figures. Nothing here imports streamlit, and nothing computes.

Every function takes results, a catalogue and a theme, and returns a `plotly.graph_objects.Figure`.
"""
