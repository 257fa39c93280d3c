"""From a source's texts to batches: the token store, rows instead of ids, examples, their order."""
