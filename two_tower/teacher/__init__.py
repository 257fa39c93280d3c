"""Models that training learns from; their vectors of texts are computed once."""
