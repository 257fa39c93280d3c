"""How the work is spread over processes, where Lightning's own strategies do not fit."""
