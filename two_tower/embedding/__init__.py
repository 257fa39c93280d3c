"""Initial word vectors and token weights of a tower's word table."""
