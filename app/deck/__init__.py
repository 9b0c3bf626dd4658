"""A lesson as a deck: one HTML file that presents the derivation, in the app or without server and network."""
