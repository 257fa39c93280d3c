"""The search service: JSON over HTTP, and a page to search with."""
