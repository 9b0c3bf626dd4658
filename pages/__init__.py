"""The pages of the app: each a short script that reads like a table of contents."""
