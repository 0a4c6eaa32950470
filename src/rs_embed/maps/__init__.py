"""Embedding maps of whole areas: made window by window, written for others to read, read back."""
