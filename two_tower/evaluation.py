"""A finished run on any collection: what ``two-tower evaluate`` does."""

from __future__ import annotations

from pathlib import Path

from two_tower.assemble import make_source
from two_tower.config import read
from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.encode import Encoder
from two_tower.report.run import Run
from two_tower.validation.evaluate import bm25_means, evaluate_dense

__all__ = ["evaluate_run"]


def evaluate_run(path: Path, data: Path | None, split: str) -> dict[str, float | int]:
    """Metrics of a run's best checkpoint and of BM25 on one split, over its whole corpus.

    Args:
        path: the run folder.
        data: a folder in the BEIR layout, or None for the run's own data.
        split: which queries.

    Returns:
        ``dense/METRIC``, ``bm25/METRIC``, ``documents``, ``queries``.

    Raises:
        UserError: the run, the data or the split does not exist.
    """
    run = Run.existing(path)
    source = Beir(str(data)) if data else make_source(read(run.config)["data"])
    encoder = Encoder.load(run)
    corpus = Corpus.load(source, encoder.tokenizer)
    queries = Split.load(corpus, split, encoder.tokenizer)
    dense = evaluate_dense(encoder.model, corpus, queries).means
    lexical = bm25_means(corpus, queries, encoder.tokenizer)
    return {
        **{f"dense/{name}": value for name, value in dense.items()},
        **{f"bm25/{name}": value for name, value in lexical.items()},
        "documents": len(corpus),
        "queries": len(queries),
    }
