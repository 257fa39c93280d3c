"""Docstrings of one source file as (summary, body) pairs, read with `ast`: nothing is ever imported or run.

The file is also the program of the harvest's worker processes, so it imports the standard library only:
a worker starts in 60 ms, and the main script is not run again in each.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

SUMMARY_WORDS = range(4, 41)  # shorter says nothing ("Initialize self."), longer is no question
MIN_BODY_WORDS = 20

# Functions that give C functions their documentation.
_DOC_CALL = re.compile(r"_?add_docstr|add_docstr_all|add_newdoc(_for_scalar_type)?|refine_ufunc")
# Modules that hold nothing but such calls: they document names of other modules.
_DOC_MODULE = re.compile(r"_(torch|tensor|storage)_docs|_?add_newdocs(_scalars)?")

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Lines that may stand before the summary: empty, "add(input, other) -> Tensor", "See :func:`add`".
_NO_SUMMARY = re.compile(r"\s*|\s*[\w.]+\(.*\)\s*(->.*)?|See :.*")
_SENTENCE = re.compile(r"(.+?[.!?])\s+(?=[A-Z`\"'(])")
_ROLE = re.compile(r":(?:py:)?[a-z]+:`~?\.?([^`<]+?)(?:\s*<[^`]*>)?`")  # :class:`~torch.Tensor`
_QUOTED = re.compile(r"`{1,2}([^`]+)`{1,2}_?")
_DIRECTIVE = re.compile(r"\.\. [a-z]+::")
_PLACEHOLDER = re.compile(r"\s*\{\w+\}\s*")  # torch forgets some of its .format() calls
_FIELD = re.compile(r"([{}])\1|\{[^{}]*\}")  # of `str.format`, where {{ means {
_UNDERLINE = re.compile(r"^\s*[-=~^]{3,}\s*$", re.MULTILINE)


class Doc(NamedTuple):
    """One documented name."""

    name: str  # dotted, as a person would look it up (private parts of the path are left out)
    summary: str  # the first sentence
    body: str  # everything after it, on one line


def words(text: str) -> list[str]:
    """The words by which lengths are counted and copies found."""
    return _WORD.findall(text)


def read_module(module: str, path: str) -> list[Doc]:
    """The usable docstrings of a module's source file; none where it cannot be read or parsed."""
    parts = module.split(".")
    documents_others = bool(_DOC_MODULE.fullmatch(parts[-1]))
    # torch's private modules are internals (inductor, dynamo); numpy's hold its public functions.
    if parts[0] == "torch" and not documents_others and any(p.startswith("_") for p in parts):
        return []
    try:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except (OSError, ValueError, SyntaxError, RecursionError):
        return []
    found = list(_documented(tree, module))
    own = ast.get_docstring(tree, clean=False)
    if own and not documents_others:
        found.insert(0, (module, own))
    docs = (Doc(_public_name(name), *split_docstring(text)) for name, text in found)
    return [d for d in docs if len(words(d.summary)) in SUMMARY_WORDS and len(words(d.body)) >= MIN_BODY_WORDS]


def split_docstring(text: str) -> tuple[str, str]:
    """First sentence and the rest, without doctests, a leading signature and reStructuredText marks."""
    lines = list(_prose(inspect.cleandoc(text).split("\n")))
    while lines and _NO_SUMMARY.fullmatch(lines[0]):
        lines.pop(0)
    first, *rest = re.split(r"\n\s*\n", "\n".join(lines).strip(), maxsplit=1)
    first = _plain(first)
    sentence = _SENTENCE.match(first + " ")
    summary = sentence[1] if sentence else first
    body = f"{first[len(summary) :].strip()} {_plain(_UNDERLINE.sub('', ''.join(rest)))}".strip()
    return summary, body


def _prose(lines: list[str]) -> Iterator[str]:
    """Leave out lines to be filled in and examples: BM25's MRR@10 is .50 without examples, .47 with them."""
    example = False  # from >>> to the next empty line
    for line in lines:
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example and not _PLACEHOLDER.fullmatch(line):
            yield line


def _plain(text: str) -> str:
    text = _DIRECTIVE.sub(" ", _QUOTED.sub(r"\1", _ROLE.sub(r"\1", text)))
    # A lone surrogate is legal in a string literal but not in UTF-8.
    return " ".join(text.encode("utf-8", "ignore").decode().split())


def _documented(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    """(name, docstring) of the public classes, functions and documenting calls below a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name.startswith("_"):
                continue
            name = f"{prefix}.{child.name}"
            if text := ast.get_docstring(child, clean=False):
                yield name, text
            if isinstance(child, ast.ClassDef):
                yield from _documented(child, name)
        elif isinstance(child, ast.Expr | ast.Assign) and isinstance(child.value, ast.Call):
            yield from _documented_by_call(child, child.value, prefix)
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _documented(child, prefix)


def _documented_by_call(statement: ast.Expr | ast.Assign, call: ast.Call, prefix: str) -> Iterator[tuple[str, str]]:
    """``add_docstr(torch.abs, "…")``, ``add_newdoc("numpy", "abs", "…")``, ``abs = _add_docstr(…, "…")``."""
    function = _dotted(call.func).rpartition(".")[2]
    if not _DOC_CALL.fullmatch(function):
        return
    literals = [_literal(argument) for argument in call.args]
    text = max((s for s in literals if "\n" in s), key=len, default="")
    if not text:
        return
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        name = f"{prefix}.{statement.targets[0].id}"
    elif function == "add_docstr_all":
        name = f"torch.Tensor.{literals[0]}"
    else:
        name = _dotted(call.args[0]) or ".".join(s for s in literals if re.fullmatch(r"[\w.]+", s))
    if name:
        yield name if "." in name else f"{prefix.partition('.')[0]}.{name}", text


def _literal(node: ast.AST) -> str:
    """The text of string literals; what is filled in at run time (formats, f-strings) is left out."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Call(func=ast.Attribute(value=value, attr=method)):
            return _FIELD.sub(r"\1", _literal(value)) if method == "format" else _literal(value)
        case ast.BinOp() | ast.JoinedStr():  # "…" + "…", "…" % …, f"…"
            return "".join(map(_literal, ast.iter_child_nodes(node)))
    return ""


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{_dotted(value)}.{name}"
    return ""


def _public_name(name: str) -> str:
    """The path as documented: ``numpy._core.fromnumeric.sort`` is ``numpy.fromnumeric.sort``."""
    if name.startswith("numpy."):
        name = re.sub(r"\.(_core|core)(?=\.)", "", name)
    return ".".join(p for p in name.split(".") if not p.startswith("_") or p.startswith("__")) or name


if __name__ == "__main__":  # a JSON list of (module, path) becomes one of documented names
    json.dump([doc for module, path in json.load(sys.stdin) for doc in read_module(module, path)], sys.stdout)
