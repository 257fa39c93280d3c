"""Vector indexes: nearest documents of a query vector."""
