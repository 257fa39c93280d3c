"""Which documents a query is pushed away from: strategies for extra negatives, and the mask of a batch."""
