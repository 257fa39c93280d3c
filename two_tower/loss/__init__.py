"""Losses reduce scores and a mask of candidates to a scalar and named diagnostics."""
