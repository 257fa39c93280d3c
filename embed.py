"""Encode a corpus with a run's document tower and index it.

    python embed.py run=RUN [data=beir data.path=FOLDER] [index=flat] [output=PATH]

The same command again continues an interrupted one, or says that it is done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from two_tower.config.entry import run_hydra


def embed(config: dict[str, Any]) -> Path:
    """Embed and index what a checked configuration describes; returns the index folder."""
    from two_tower.assemble import make_source
    from two_tower.config import build, read, to_yaml
    from two_tower.encode import Encoder, embed_corpus
    from two_tower.files import write_text
    from two_tower.report.console import counter, say
    from two_tower.report.run import Run

    run = Run.existing(config["run"])
    path = Path(config["output"] or run.index)
    encoder = Encoder.load(run)
    source = make_source(config.get("data") or read(run.config)["data"])

    with counter(f"Embedding {source.name}", "passages") as progress:
        store = embed_corpus(encoder, source, path, config["shard_rows"], progress)
    done = path / "index.yaml"  # appears last, so its presence means that the index is complete
    if done.exists() and read(done) == config["index"]:
        say(f"{path} is complete: {store.manifest.rows:,} passages, nothing to do.")
        return path
    index = build(config["index"])
    index.build(store, encoder.model.similarity)
    index.save(path)
    write_text(done, to_yaml(config["index"]))
    say(f"{path}: {store.manifest.rows:,} passages as {store.manifest.dim}-dimensional vectors, indexed.")
    say(f'Next: two-tower search {run.path} "your question"', style="dim")
    return path


@hydra.main(version_base="1.3", config_path="conf", config_name="embed")
def main(composed: DictConfig) -> None:
    """Compose, check, embed."""
    from two_tower.assemble import LOADER_KEYS
    from two_tower.config import check

    embed(check(composed, extra_keys={"data": LOADER_KEYS}))


if __name__ == "__main__":
    run_hydra(main, "embed")
