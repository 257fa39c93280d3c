"""docs/configuration.md: every group, choice and key of ``conf/``, with defaults, types and comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.tables import markdown
from two_tower import assemble, embed
from two_tower.config.build import argument_types, in_words, items_of, target_of
from two_tower.config.saved import CONF
from two_tower.data.base import LOADER_KEYS
from two_tower.index import MEASURE_KEYS
from website.conf_files import File, Key, read
from website.links import slug

Types = Mapping[str, Any]

HEAD = """# Configuration

Every group, every choice and every key, with its default. A group is a folder of `conf/`, a choice is a file in it:

    python train.py tower=gru tower.dim=256 optimizer.lr=0.001

takes the file `conf/tower/gru.yaml` and sets two keys. `null` stands for none, or for what the text says;
`${tower.dim}` for the value of another key. A key marked as required has no default. Which choice is worth what:
[towers](towers.md), [losses](losses.md), [negatives](negatives.md), [word vectors](embeddings.md), [data](data.md),
[indexes](indexes.md).

`python -m benchmarks.fill` makes this page from the comments in `conf/`."""

# Types of keys that are no arguments of a class.
OWN_TYPES: Mapping[str, Types] = {
    "train": assemble.TOP_LEVEL,
    "embed": embed.TOP_LEVEL,
    "data/_loader": LOADER_KEYS,
    "index/_measure": MEASURE_KEYS,
}
_FORMATS = re.compile(r"([\\*|\[\]]|\b_|_\b)")
LONGEST = 60  # characters of a default in a table; a longer one stands below


def page() -> str:
    """The page, in Markdown."""
    programs = {name: read(CONF / f"{name}.yaml") for name in ("train", "embed")}
    chosen = [choice for file in programs.values() for choice in file.defaults if (CONF / choice.group).is_dir()]
    about = {choice.group: choice.comment for choice in reversed(chosen) if choice.group}
    folders = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*/*.yaml")}
    order = dict.fromkeys([choice.group for choice in chosen if choice.group] + sorted(folders))
    parts = [HEAD, *(part for name, file in programs.items() for part in _program(name, file))]
    return "\n\n".join([*parts, *(part for group in order for part in _group(group, about.get(group, "")))]) + "\n"


def _program(name: str, file: File) -> Iterator[str]:
    yield f"## `{name}.py`"
    yield escaped(file.about)
    groups = [choice for choice in file.defaults if (CONF / choice.group).is_dir() and choice.group]
    lines = [["group", "default", "what it is"], ["---"] * 3]
    lines += [[_link(choice.group), _code(choice.choice), escaped(choice.comment)] for choice in groups]
    yield markdown(lines)
    yield from _table(file.whole, "", OWN_TYPES[name])


def _group(group: str, about: str) -> Iterator[str]:
    yield f"## {_code(group)}"
    if about:
        yield f"{escaped(about[0].upper() + about[1:])}."
    names = sorted((path.stem for path in (CONF / group).glob("*.yaml")), key=lambda name: (name[0] == "_", name))
    for name in names:
        yield f"### {_code(_title(group, name))}"
        yield from _choice(group, name)


def _choice(group: str, name: str) -> Iterator[str]:
    file = read(CONF / group / f"{name}.yaml")
    yield escaped(file.about)
    notes = list(_notes(group, file))
    if target := file.whole.of("_target_"):
        notes.append(f"- Builds {_code(target)}.")
    if notes:
        yield "\n".join(notes)
    place = "" if group == "experiment" else group.replace("/", ".") + "."
    yield from _table(file.whole, place, OWN_TYPES.get(f"{group}/{name}") or _types(_target(group, name)))


def _notes(group: str, file: File) -> Iterator[str]:
    """What a choice takes from others: a line for each."""
    for entry in file.defaults:
        other, _, place = entry.group.removeprefix("/").partition("@")
        comment = f": {escaped(entry.comment)}" if entry.comment else ""
        if entry.choice == "_self_":
            continue
        if not entry.group:
            yield f"- Has the keys of {_link(group, entry.choice)}{comment}."
        elif entry.override:
            yield f"- Chooses {_link(other, entry.choice)}{comment}."
        elif place:
            yield f"- {_code(f'{group}.{place}')} is {_link(other, entry.choice)}{comment}."
        else:
            yield f"- Chooses {_link(f'{group}/{other}', entry.choice)}{comment}."


def _target(group: str, name: str) -> str:
    """The class that a choice builds, perhaps named by the file whose keys it has."""
    file = read(CONF / group / f"{name}.yaml")
    bases = [entry.choice for entry in file.defaults if not entry.group and entry.choice != "_self_"]
    return file.whole.of("_target_") or next(filter(None, (_target(group, base) for base in bases)), "")


def _types(target: str) -> Types:
    """Argument → type of a class of this project; of another's, whose version may differ, none."""
    return argument_types(target_of({"_target_": target})) if target.startswith("two_tower.") else {}


def _table(whole: Key, place: str, types: Types) -> Iterator[str]:
    """The keys of a file, and below them the defaults that are too long for a table."""
    rows, below = list[list[str]](), list[str]()
    for key, name, hint in _flat(whole, place, types):
        value = _code(key.value)
        if key.value == "???":
            value = "required"
        elif len(key.value) > LONGEST:
            value = "below"
            below.append(f"The default of {_code(name)}:\n\n```yaml\n{key.value}\n```")
        rows.append([_code(name), value, escaped(_words(hint)), escaped(key.comment)])
    if not rows:
        return
    typed = any(row[2] for row in rows)
    head = ["key", "default", "type", "what it does"]
    lines = [head, ["---"] * 4, *rows]
    yield markdown(lines if typed else [[*line[:2], line[3]] for line in lines])
    yield from below


def _flat(whole: Key, place: str, types: Types) -> Iterator[tuple[Key, str, Any]]:
    """The keys below ``whole`` with their full names and types; a component with its class as its value."""
    for key in whole.keys:
        name, hint = f"{place}{key.name}", types.get(key.name)
        if key.name.startswith("_"):
            continue
        if not key.keys:
            yield key, name, hint
            continue
        target = key.of("_target_")
        if target or key.comment:
            yield Key(key.name, target.rpartition(".")[2], key.comment), name, None
        inner = _types(target) if target else {each.name: items_of(hint) for each in key.keys}
        yield from _flat(key, f"{name}.", inner)


def _words(hint: Any) -> str:  # noqa: ANN401
    return "" if hint is None else re.sub(r" \(written .*?\)", "", in_words(hint))


def _title(group: str, name: str) -> str:
    return f"{group}/{name}" if name.startswith("_") else f"{group}={name}"


def _link(group: str, name: str = "") -> str:
    title = _title(group, name) if name else group
    return f"[{_code(title)}](#{slug(title)})"


def escaped(text: str) -> str:
    """A text in which Markdown finds nothing to format, also within a table; code in backticks stays."""
    parts = re.split("(`[^`]*`)", text)
    return "".join(part if part[:1] == "`" else _FORMATS.sub(r"\\\1", part).replace("<", "&lt;") for part in parts)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""
