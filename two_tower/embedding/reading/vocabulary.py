"""Lists of words that belong to the rows of a matrix: text, JSON as many projects save it, Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from two_tower.embedding.reading.file import opened
from two_tower.errors import UserError

__all__ = ["read_words"]


def read_words(path: Path) -> dict[int, str]:
    """The words of a matrix' rows: row → word.

    Args:
        path: a text file with a word per line, plain or ``.gz``; a ``.json`` with a list of words, a mapping
            of words to rows or of rows to words, by itself or inside of another object (as in a
            ``tokenizer.json``); or a ``.parquet`` whose only text column holds the words.

    Raises:
        UserError: the file cannot be read, or holds no list of words.
    """
    if not path.is_file():
        raise UserError(f"embedding.vocabulary={path} does not exist: give the file with the words of the rows.")
    try:
        words = _read(path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a list of words: {str(error).splitlines()[0]}.") from error
    if not words:
        raise UserError(f"{path} holds no words: give a list of words, or a mapping of words to rows.")
    return words


def _read(path: Path) -> dict[int, str] | None:
    if path.suffix == ".parquet":
        return _from_parquet(path)
    with opened(path) as file:
        content = file.read().decode("utf-8-sig")
    if path.suffixes[-1:] == [".json"] or path.suffixes[-2:] == [".json", ".gz"]:
        return next((words for part in _parts(json.loads(content)) if (words := _from_json(part))), None)
    lines = content.removesuffix("\n").split("\n")
    return {row: line.removesuffix("\r") for row, line in enumerate(lines)} if content else None


def _from_parquet(path: Path) -> dict[int, str] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    texts = [c for c in table.columns if pa.types.is_string(c.type) or pa.types.is_large_string(c.type)]
    return dict(enumerate(word or "" for word in texts[0].to_pylist())) if len(texts) == 1 else None


def _parts(document: Any, depth: int = 2) -> Iterator[Any]:  # noqa: ANN401
    """A JSON document and what is in it: vocabularies are often saved beside other things."""
    yield document
    if isinstance(document, Mapping) and depth:
        for value in document.values():
            yield from _parts(value, depth - 1)


def _from_json(document: Any) -> dict[int, str] | None:  # noqa: ANN401
    if isinstance(document, list) and all(isinstance(word, str) for word in document):
        return dict(enumerate(document))
    if not isinstance(document, Mapping):
        return None
    if all(type(row) is int and row >= 0 for row in document.values()):
        words = {row: word for word, row in document.items()}
        if len(words) < len(document):
            raise ValueError("two words have the same row")
        return words
    if all(row.isdecimal() and isinstance(word, str) for row, word in document.items()):
        return {int(row): word for row, word in document.items()}
    return None
