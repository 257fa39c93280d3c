"""Models that training learns from: their vectors of texts, computed once."""
