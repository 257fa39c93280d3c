"""Where text comes from: sources, triplets in a reproducible order, the Lightning data module."""
