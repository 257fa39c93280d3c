"""Tokens to vectors. A tower knows nothing of queries, documents or similarities."""
