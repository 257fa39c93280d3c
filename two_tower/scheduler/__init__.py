"""How the learning rate changes during training; every schedule multiplies each group's own rate."""
