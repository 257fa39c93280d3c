"""Configurations: composed by Hydra, checked before anything loads, then plain dicts everywhere.

The only package that sees OmegaConf and Hydra, besides the two programs that it runs: train.py and embed.py.
"""

from two_tower.config.build import build, check
from two_tower.config.saved import differences, digest, read, to_yaml

__all__ = ["build", "check", "differences", "digest", "read", "to_yaml"]
