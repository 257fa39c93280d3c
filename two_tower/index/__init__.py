"""Vector indexes: nearest documents of a query vector."""

from two_tower.index._make import Queries, is_made, load_index, make_index
from two_tower.index.base import MEASURE_KEYS, VectorIndex

__all__ = ["MEASURE_KEYS", "Queries", "VectorIndex", "is_made", "load_index", "make_index"]
