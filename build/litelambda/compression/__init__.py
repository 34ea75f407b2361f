"""Compression: folding, low rank, structured and unstructured pruning, clustering, and fine-tuning after each."""
