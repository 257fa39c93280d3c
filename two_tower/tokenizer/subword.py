"""The tokenizer of a transformer: a folder's own `tokenizer.json`, with its pieces of words and special tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from two_tower.errors import UserError, at_least
from two_tower.tokenizer.base import Texts, Tokenizer, truncation


class SubwordTokenizer:
    """Takes the `tokenizer.json` of a model's folder; the special tokens that it adds, if any, count as tokens."""

    def __init__(
        self, path: Path | None, query_tokens: int = 64, document_tokens: int = 256, special_tokens: bool | None = True
    ) -> None:
        if path is None:
            raise ValueError("path is not set: give the folder of a transformer")
        self.path, self.query_tokens, self.document_tokens = Path(path), query_tokens, document_tokens
        self.special_tokens = bool(special_tokens)
        settings = self.path / "tokenizer_config.json"
        max_tokens = int(_object(settings).get("model_max_length", 1e30)) if settings.exists() else int(1e30)
        at_least(1, query_tokens=query_tokens, document_tokens=document_tokens)
        for name in ("query_tokens", "document_tokens"):
            if getattr(self, name) > max_tokens:
                raise ValueError(f"{name}={getattr(self, name)} must be at most {max_tokens}, which {path} can read")
        # 16 hexadecimal digits: prepared tokens are found again by it.
        self.digest = hashlib.sha256(json.dumps(self._definition()).encode()).hexdigest()[:16]

    def train(self, texts: Iterable[Texts]) -> Tokenizer:
        """The folder's tokenizer with this one's limits; ``texts`` are not read."""
        definition = {**self._definition(), "truncation": truncation(self.query_tokens, self.document_tokens)}
        return Tokenizer({**definition, "padding": None})

    def _definition(self) -> dict[str, Any]:
        if not self.path.is_dir():
            raise ValueError(f"path={self.path} is not a folder: give the folder of a transformer")
        definition = _object(self.path / "tokenizer.json")
        return definition if self.special_tokens else {**definition, "post_processor": None}


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object.")
    return value
