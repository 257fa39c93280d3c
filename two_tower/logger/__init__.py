"""Loggers. The CSV history is always written."""
