"""Question answering with a search tool over a user's own passages."""
