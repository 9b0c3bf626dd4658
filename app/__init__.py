"""The Streamlit app: everything that the pages share. Imports geomix_core, never the pages."""
