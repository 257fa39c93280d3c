"""Evaluation against all documents, in training and afterwards."""
