"""Two-tower (dual-encoder) search: towers, losses, negatives, whole-corpus evaluation, diagnosis, search."""

__version__ = "0.1.0"
