"""xmodal: a reproducible laboratory for cross-modal transfer on frozen CLIP-like features."""

__version__ = "0.1.0"
