"""Metrics: tensors or strings in, flat dictionaries of fractions out; no files, no models."""
