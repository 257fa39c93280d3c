"""``two-tower embed``, the same as ``python embed.py``: encode a corpus with a run's document tower and index it.

The same command again continues an interrupted one, or says that it is done. Where the collection has changed, it
encodes what is new.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from two_tower.config.build import Composed, Types
from two_tower.config.entry import run_hydra
from two_tower.errors import UserError

if TYPE_CHECKING:
    from two_tower.encode import Encoder
    from two_tower.engine.base import Engine
    from two_tower.index import Queries
    from two_tower.run import Run

# The keys of conf/embed.yaml that belong to no group.
TOP_LEVEL = {"run": str, "output": str | None, "shard_rows": int, "dtype": Literal["float32", "float16", "int8"]}


def embed(config: dict[str, Any]) -> Path:
    """Embed and index what a checked configuration describes; returns the index folder."""
    from two_tower.engine import make_engine
    from two_tower.run import Run

    engine, run = make_engine(config), Run.existing(Path(config["run"]).expanduser())
    path = Path(config["output"] or run.index).expanduser()
    with engine.ready("two_tower.vectors"), _alone(path):
        _embed(config, run, path, engine)
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process writes the same index."""
    from filelock import FileLock, Timeout

    from two_tower.cache import cache_folder, key_of
    from two_tower.console import say

    lock = FileLock(cache_folder() / f".{key_of(str(path.resolve()))}.lock")  # beside the index it would be in the way
    cache_folder().mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"Another process writes {path}: waiting for its end.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _embed(config: dict[str, Any], run: Run, path: Path, engine: Engine) -> None:
    from two_tower.console import command, counter, say, say_next

    with counter(f"Loading {run.path}"):
        from two_tower.encode import Encoder, embed_corpus
        from two_tower.files import settle
        from two_tower.index import is_made, make_index
        from two_tower.loading import make_source, own_source
        from two_tower.renewal import Earlier, beside, put_in_place

        source = make_source(config["data"]) if config.get("data") else own_source(run)
        encoder = Encoder.of_collection(run, source, path)
    if encoder.words is not None:
        say(str(encoder.words), style="dim")
    validated_against = run.read_results().get("all_documents") if run.complete else None
    total = source.estimated_size() if config.get("data") else validated_against

    where = ["--index", path] if config["output"] else []
    search = command("two-tower", "search", run.path, "your question", *where)
    following = search, command("two-tower", "serve", run.path, *where)

    dtype = config.get("dtype", "float32")
    manifest = encoder.manifest(source, config["shard_rows"], dtype)
    settle(path)
    earlier = Earlier.find(path, run, encoder, manifest)
    # What is there stays whole and in use until its successor is.
    folder = beside(path, manifest) if earlier else path
    with counter(f"Embedding {source.name}", "passages", total) as progress:
        numbers = earlier.numbers if earlier else None
        store = embed_corpus(encoder, source, folder, config["shard_rows"], progress, dtype, numbers, engine)
    if earlier:
        say(f"{path}: {earlier.changes(store)}; {encoder.passages.counts.passages:,} encoded.")
    if unknown := encoder.passages.counts.unknown:
        tokens = encoder.passages.counts.tokens
        share = f"{unknown:,} of {tokens:,} words ({unknown / tokens:.2%})"
        say(f"{share} are not in the run's vocabulary and were left to its unknown word.", style="dim")
    if not earlier and is_made(path, config["index"]):
        shutil.rmtree(beside(path, manifest), ignore_errors=True)  # of a process that was killed at its very end
        say(f"{path} is complete: {store.manifest.rows:,} passages, nothing to do.")
        _archive(run, path)
        say_next(*following)
        return
    queries = _queries(run, encoder)
    with counter("Indexing", "vectors", store.manifest.rows) as indexing:
        report = make_index(config["index"], store, queries, indexing, earlier.store.path if earlier else None)
    if earlier:
        put_in_place(folder, path)
    say(f"{path}: {store.manifest.rows:,} passages as {store.manifest.dim}-dimensional vectors, indexed.")
    say(f"Encoded {progress}, indexed and measured ({indexing.seconds:.1f} s).", style="dim")
    say(str(report), style="dim")
    _archive(run, path)
    say_next(*following)


def _archive(run: Run, path: Path) -> None:
    """Hand the index to a logger that keeps files; only then is what loggers need imported, which takes seconds."""
    from two_tower.config import read

    if read(run.config)["logger"].get("artifacts"):
        from two_tower.logger import archive_index

        archive_index(run, path)


def _queries(run: Run, encoder: Encoder) -> Queries | None:
    """The run's validation queries, to measure the index with; None where they cannot be read."""
    import pyarrow as pa

    from two_tower.config import read
    from two_tower.loading import own_source

    config = read(run.config)["data"]
    try:
        texts = own_source(run).queries(config["validation_split"])["text"]
    except UserError:
        return None
    # Every passage is equally near to a query without a known word.
    texts = texts.filter(pa.array(encoder.known(texts)))
    return encoder.queries(texts), f"queries of '{config['validation_split']}'"


def resolve(composed: Composed) -> dict[str, Any]:
    """A composed configuration as checked plain values."""
    from two_tower.config import check

    return check(composed, _types())


def _types() -> dict[str, Types]:
    from two_tower.data.base import LOADER_KEYS
    from two_tower.index import MEASURE_KEYS

    return {"": TOP_LEVEL, "data": LOADER_KEYS, "index": MEASURE_KEYS}


def main() -> None:
    """Embed what the command line says."""
    from two_tower.console import counter, work_alone

    def run(composed: Composed) -> None:
        with counter("Loading PyTorch"):  # which takes some seconds
            config = resolve(composed)
        embed(config)

    work_alone()
    run_hydra(run, "embed", more_types=_types)
