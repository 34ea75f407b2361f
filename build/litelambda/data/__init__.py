"""Data sets: read from arrays, images and tables, in memory or from disk, and split."""
