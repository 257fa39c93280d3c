"""``python .ci/lowest.py``: pip constraints that hold each direct requirement at the lowest version allowed."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
    if found := re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement):
        print(f"{found[1]}=={found[2]}" + ".*" * (found[2].count(".") < 2))  # noqa: T201
