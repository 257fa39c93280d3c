"""Reads a file of ``conf/`` with its comments, which a YAML library drops."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode


class Choice(NamedTuple):
    """An entry of a defaults list: ``override /tower: gru  # why``."""

    group: str  # as written, without ``override``; empty for another file of the same folder
    choice: str
    comment: str
    override: bool = False


@dataclass
class Key:
    """A key, its value as it is written, and its comment."""

    name: str
    value: str  # empty where it has keys below
    comment: str
    keys: list[Key] = field(default_factory=list)

    def of(self, name: str) -> str:
        """The value of a key below; empty where there is none."""
        return next((key.value for key in self.keys if key.name == name), "")


class File(NamedTuple):
    """What a file says."""

    about: str  # the comment that it begins with
    defaults: list[Choice]
    whole: Key  # without a name; its keys are the file's


def read(path: Path) -> File:
    """The file at ``path``."""
    text = path.read_text(encoding="utf-8")
    lines, node = text.splitlines(), yaml.compose(text)
    head = re.match(r"(?:#.*\n)*", text)
    about = [line[1:].strip() for line in (head[0] if head else "").splitlines() if not line.startswith("# @")]
    if node is None:
        return File(" ".join(about), [], Key("", "", ""))
    assert isinstance(node, MappingNode)
    defaults = [choice for key, value in node.value if key.value == "defaults" for choice in _choices(value, lines)]
    node.value = [(key, value) for key, value in node.value if key.value != "defaults"]
    keys = list(_keys(node, lines))
    about = about or [key.comment for key in keys if key.name == "_target_"]
    return File(" ".join(about), defaults, Key("", "", "", keys))


def _keys(node: MappingNode, lines: list[str]) -> Iterator[Key]:
    for key, value in node.value:
        block = isinstance(value, MappingNode) and not value.flow_style
        comment = _comment(key if block else value, lines)
        if not block:
            yield Key(key.value, _written(value), comment)
        elif all(inner.value.isidentifier() for inner, _ in value.value):
            yield Key(key.value, "", comment, list(_keys(value, lines)))
        else:  # a value with keys of its own, which a command line cannot name
            source = lines[value.start_mark.line : value.end_mark.line]
            yield Key(key.value, dedent("\n".join(source)), comment)


def _choices(node: SequenceNode, lines: list[str]) -> Iterator[Choice]:
    for entry in node.value:
        if isinstance(entry, ScalarNode):
            yield Choice("", entry.value, _comment(entry, lines))
        else:
            ((key, value),) = entry.value
            override, _, group = key.value.rpartition(" ")
            yield Choice(group, value.value, _comment(value, lines), bool(override))


def _written(node: Node) -> str:
    return str(node.start_mark.buffer[node.start_mark.pointer : node.end_mark.pointer])


def _comment(node: Node, lines: list[str]) -> str:
    """What stands behind a key or value on its line."""
    return lines[node.end_mark.line][node.end_mark.column :].partition("#")[2].strip()
