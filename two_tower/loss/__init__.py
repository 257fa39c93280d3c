"""Losses reduce a batch of vectors and a mask of negatives to a scalar and named diagnostics."""
