"""The card of an exported model, as Hugging Face reads it. Nothing here imports what trains, which takes seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from two_tower.config import read
from two_tower.config.build import target_of
from two_tower.config.saved import to_yaml
from two_tower.errors import UserError
from two_tower.run import Run

QUOTES = "Examples"  # the section of a card that quotes the data
UNSTATED = "not stated: find out, and add it before you pass the model on"


def readme(run: Run, languages: Sequence[str], how_to_load: str) -> str:
    """The card for the folder of an exported model: front matter as Hugging Face reads it, and how to load the model.

    Without the section of examples, which quotes the data. A run that has not ended has no card: then it says so.
    """
    facts: dict[str, Any] = {"library_name": "sentence-transformers", "pipeline_tag": "sentence-similarity"}
    facts |= {"tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "two-tower"]}
    if licence_of(run):
        facts["license"] = "other"  # the terms are no licence that has an identifier there
    if languages:
        facts["language"] = [*languages]
    unknown = f"# {run.path.name}\n\nThis run has not ended: what it is worth is not known.\n"
    page = run.card.read_text(encoding="utf-8") if run.card.exists() else unknown
    page = re.sub(rf"^## {QUOTES}\n.*?(?=^## )", "", page, flags=re.MULTILINE | re.DOTALL)
    head, _, rest = page.partition("\n\n## ")
    start = f"---\n{to_yaml(facts)}---\n\n{head.rstrip()}\n\n## Load it\n\n{how_to_load}\n"
    return f"{start}\n## {rest}" if rest else start


def licence_of(run: Run) -> str | None:
    """What the data of a run may be used for; None where nobody has said."""
    with suppress(UserError):  # a source that lies elsewhere now
        return getattr(target_of(read(run.config)["data"]), "licence", None)
    return None
