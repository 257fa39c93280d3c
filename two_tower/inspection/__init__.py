"""What a collection is like, before anything is trained on it: sizes, lengths, copies, leakage, mistakes."""
