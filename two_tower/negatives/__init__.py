"""Negatives strategies propose candidates: the documents that a query is pushed away from."""
