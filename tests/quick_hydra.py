"""Hydra composes in two thirds of the time once this is imported: tests do so hundreds of times."""

import yaml
from hydra._internal import defaults_list

yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# For each default it copies the other choices, to which `conf` refers nowhere (`- loss: ${negatives}`).
defaults_list._create_interpolation_map = lambda *of_defaults: None
