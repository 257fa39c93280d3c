"""From a source's texts to batches: the token store, rows instead of ids, triplets, their order."""
