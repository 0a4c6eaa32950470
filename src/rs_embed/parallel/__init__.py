"""Several things at a time: threads, bounded stages, and how many cores there are."""
