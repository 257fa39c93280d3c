"""Optimizers that step dense parameters and only the touched rows of word tables; groups, clipping."""
