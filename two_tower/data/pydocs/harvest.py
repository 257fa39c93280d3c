"""The (summary, body) pairs of the installed packages' docstrings: find sources, read them, drop copies."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from two_tower.data.pydocs import docstring
from two_tower.data.pydocs.docstring import Doc, words

__all__ = ["PACKAGES", "drop_copies", "harvest", "source_files", "versions"]

# Import name -> distribution. All come with the project's own requirements; others would make the corpus
# depend on what else is installed.
PACKAGES = {
    "aiohttp": "aiohttp",
    "filelock": "filelock",
    "fsspec": "fsspec",
    "hydra": "hydra-core",
    "jinja2": "Jinja2",
    "lightning": "lightning",
    "lightning_fabric": "pytorch-lightning",
    "lightning_utilities": "lightning-utilities",
    "mpmath": "mpmath",
    "networkx": "networkx",
    "numpy": "numpy",
    "omegaconf": "omegaconf",
    "packaging": "packaging",
    "pytorch_lightning": "pytorch-lightning",
    "sympy": "sympy",
    "torch": "torch",
    "torchmetrics": "torchmetrics",
    "tqdm": "tqdm",
    "yaml": "PyYAML",
}

_SKIP = re.compile(
    r"(tests?|testing|_tests|test_.*|.*_test\.py|_pytest|benchmarks?|examples?"
    r"|_vendor|_vendored|vendored|site-packages|idlelib|lib2to3|turtledemo|ensurepip|__pycache__)(\.py)?"
)
_PROCESSES = 2  # 10 s on two cores, 16 s with one; the result is the same with any number
_FILES_PER_TASK = 256
_NEAR = 0.6  # Jaccard similarity of word 3-grams from which on two texts are one


def harvest(
    files: Sequence[tuple[str, str]], progress: Callable[[Iterable[list[Doc]], int], Iterable[list[Doc]]]
) -> list[Doc]:
    """Read source files in parallel and keep one of each text.

    Args:
        files: (dotted module name, path) of each.
        progress: wraps the results as they come, and their number: shows how far it is.

    Returns:
        The documented names, sorted by name; a name may occur several times.
    """
    tasks = [files[i : i + _FILES_PER_TASK] for i in range(0, len(files), _FILES_PER_TASK)]
    with ThreadPoolExecutor(_PROCESSES) as pool:
        docs = [doc for found in progress(pool.map(_read, tasks), len(tasks)) for doc in found]
    return sorted(drop_copies(docs), key=lambda doc: doc.name)


def source_files(stdlib: bool) -> Iterator[tuple[str, str]]:
    """(dotted module name, path) of the sources of `PACKAGES` and the standard library, in a fixed order."""
    if stdlib:
        yield from _walk(sysconfig.get_paths()["stdlib"], "")
    for package in sorted(PACKAGES):
        spec = importlib.util.find_spec(package)  # finds, does not import
        if spec is not None and spec.origin is not None:
            yield from _walk(os.path.dirname(spec.origin), package)


def versions() -> list[str]:
    """``name==version`` of the installed distributions of `PACKAGES`, sorted."""
    found = []
    for distribution in sorted(set(PACKAGES.values())):
        try:
            found.append(f"{distribution}=={importlib.metadata.version(distribution)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def drop_copies(docs: Iterable[Doc]) -> list[Doc]:
    """One of each text, the one with the shortest path: ``pytorch_lightning.x``, not ``lightning.pytorch.x``.

    Copies have the same summary, the same start of the body, or most of their word 3-grams in common.
    """
    kept: list[Doc] = []
    summaries: set[str] = set()
    bodies: set[str] = set()
    shingles: list[set[int]] = []
    holders: dict[int, list[int]] = {}  # 3-gram -> texts that have it among their 8 smallest (min-hash)
    for doc in sorted(docs, key=lambda d: (d.name.count("."), len(d.name), d.name)):
        summary, body = (" ".join(words(text)).lower() for text in (doc.summary, doc.body))
        if summary in summaries or body[:400] in bodies:
            continue
        summaries.add(summary)
        bodies.add(body[:400])
        own = _shingles(f"{summary} {body}".split()[:140])
        smallest = sorted(own)[:8]
        rivals = {text for gram in smallest for text in holders.get(gram, ())}
        if any(_jaccard(own, shingles[text]) >= _NEAR for text in rivals):
            continue
        for gram in smallest:
            holders.setdefault(gram, []).append(len(kept))
        kept.append(doc)
        shingles.append(own)
    return kept


def _read(files: Sequence[tuple[str, str]]) -> list[Doc]:
    # A plain child process: multiprocessing would run the main script again in each child (spawn) or copy a
    # process full of the libraries' threads (fork).
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "ignore", docstring.__file__],
        input=json.dumps(files).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return [Doc(*row) for row in json.loads(done.stdout)]


def _walk(root: str, package: str) -> Iterator[tuple[str, str]]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(s for s in subfolders if s.isidentifier() and not _SKIP.fullmatch(s))
        inner = Path(folder).relative_to(root).parts
        for name in sorted(names):
            if name.endswith(".py") and not _SKIP.fullmatch(name):
                last = () if name == "__init__.py" else (name[:-3],)
                yield ".".join(p for p in (package, *inner, *last) if p), os.path.join(folder, name)


def _shingles(tokens: list[str]) -> set[int]:
    return {zlib.crc32(" ".join(tokens[i : i + 3]).encode()) for i in range(max(1, len(tokens) - 2))}


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)
