"""Encode a corpus with a run's document tower and index it.

    python embed.py run=RUN [data=beir data.path=FOLDER] [index=flat] [output=PATH]

The same command again continues an interrupted one, or says that it is done.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from two_tower.config.entry import run_hydra
from two_tower.errors import UserError

if TYPE_CHECKING:
    from two_tower.index.base import VectorIndex
    from two_tower.similarity import Similarity

# The keys of conf/embed.yaml that belong to no group.
TOP_LEVEL = {"run": str, "output": str | None, "shard_rows": int}


def embed(config: dict[str, Any]) -> Path:
    """Embed and index what a checked configuration describes; returns the index folder."""
    from two_tower.assemble import make_source
    from two_tower.config import build, read, to_yaml
    from two_tower.encode import Encoder, embed_corpus
    from two_tower.files import write_text
    from two_tower.progress import counter
    from two_tower.report.console import say
    from two_tower.report.run import Run

    run = Run.existing(config["run"])
    path = Path(config["output"] or run.index)
    encoder = Encoder.load(run)
    source = make_source(config.get("data") or read(run.config)["data"])

    with counter(f"Embedding {source.name}", "passages") as progress:
        store = embed_corpus(encoder, source, path, config["shard_rows"], progress)
    done = path / "index.yaml"  # appears last, so its presence means that the index is complete
    index = build(config["index"])
    if done.exists() and read(done) == config["index"] and _is_whole(index, path, encoder.model.similarity):
        say(f"{path} is complete: {store.manifest.rows:,} passages, nothing to do.")
        return path
    done.unlink(missing_ok=True)
    index.build(store, encoder.model.similarity)
    index.save(path)
    write_text(done, to_yaml(config["index"]))
    say(f"{path}: {store.manifest.rows:,} passages as {store.manifest.dim}-dimensional vectors, indexed.")
    say(f'Next: two-tower search {run.path} "your question"', style="dim")
    return path


def _is_whole(index: VectorIndex, path: Path, similarity: Similarity) -> bool:
    try:
        index.load(path, similarity)
    except UserError:
        return False
    return True


def main(composed: DictConfig) -> None:
    """Check, embed."""
    from two_tower.assemble import LOADER_KEYS
    from two_tower.config import check

    embed(check(composed, {"": TOP_LEVEL, "data": LOADER_KEYS}))


if __name__ == "__main__":
    run_hydra(main, "embed")
