"""Files of word vectors in the formats in use, read without running anything that is in them."""
