"""A finished run on any collection: what ``two-tower evaluate`` does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from two_tower.assemble import make_source
from two_tower.config import read
from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.fusion import DEPTH, Fusion, tune
from two_tower.metrics import DEFAULT_METRICS, evaluate
from two_tower.metrics.significance import mean_interval, randomisation_test
from two_tower.run import Run
from two_tower.validation._evaluate import evaluate_bm25, evaluate_dense

__all__ = ["describe", "evaluate_run"]


def evaluate_run(path: Path, data: Path | Mapping[str, Any] | None, split: str, hybrid: bool = False) -> dict[str, Any]:
    """Metrics of a run's best checkpoint and of BM25 on one split, over its whole corpus.

    Args:
        path: the run folder.
        data: a folder in the BEIR layout, the configuration of a data source, or None for the run's own data.
        split: which queries.
        hybrid: fuse the two as well. How is chosen once, on the validation split of the run's own data, and kept in
            the run folder as ``hybrid.json``.

    Returns:
        ``dense/METRIC``, ``bm25/METRIC``, perhaps ``hybrid/METRIC``, each with the ends of its 95 % bootstrap interval
        (``dense/METRIC/low``, ``dense/METRIC/high``); how likely chance alone makes as large a difference from BM25
        (``dense/METRIC/p_vs_bm25``, ``hybrid/METRIC/p_vs_bm25``) or from the tower (``hybrid/METRIC/p_vs_dense``):
        paired randomisation tests, uncorrected; ``documents``, ``queries``, ``split``; with the hybrid
        ``fusion/method``, ``fusion/weight``, ``fusion/split``,
        ``fusion/metric`` and ``fusion/chosen_here``, whether these very queries decided on it.

    Raises:
        UserError: the run, the data or the split does not exist.
    """
    run = Run.existing(path)
    source = Beir(str(data)) if isinstance(data, Path) else make_source(data or read(run.config)["data"])
    encoder = Encoder.load(run)
    here = _Collection(encoder, Corpus.load(source, encoder.tokenizer), split)
    per_query = {"dense": here.dense.per_query, "bm25": here.bm25.per_query}
    about_fusion: dict[str, Any] = {}
    if hybrid:
        fusion = _fusion(run, here)
        per_query["hybrid"] = here.fused(fusion)
        about_fusion = {f"fusion/{key}": getattr(fusion, key) for key in ("method", "weight", "split", "metric")}
        about_fusion["fusion/chosen_here"] = (fusion.data, fusion.split) == (source.fingerprint(), split)
    figures = {f"{system}/{name}": v for system, values in per_query.items() for name, v in values.items()}
    return {
        **_with_intervals(figures),
        **_chances(per_query, "bm25", ("dense", "hybrid")),
        **_chances(per_query, "dense", ("hybrid",)),
        "documents": len(here.corpus),
        "queries": len(here.queries),
        "split": split,
        **about_fusion,
    }


def _chances(per_query: Mapping[str, Mapping[str, np.ndarray]], other: str, systems: Iterable[str]) -> dict[str, float]:
    """``SYSTEM/METRIC/p_vs_OTHER`` of every metric, for those of the systems that there are."""
    return {
        f"{system}/{metric}/p_vs_{other}": randomisation_test(values, per_query[other][metric])
        for system in systems
        for metric, values in per_query.get(system, {}).items()
    }


class _Collection:
    """The queries of a split, ranked by a run's towers and by BM25.

    Args:
        encoder: the run's encoder.
        corpus: what is ranked.
        split: name of the queries.
    """

    def __init__(self, encoder: Encoder, corpus: Corpus, split: str) -> None:
        self.encoder, self.corpus = encoder, corpus
        self.queries = Split.load(corpus, split, encoder.tokenizer)
        self.dense = evaluate_dense(encoder.model, corpus, self.queries, DEPTH)
        self.bm25 = evaluate_bm25(corpus, self.queries, encoder.tokenizer, DEPTH)

    def fused(self, fusion: Fusion) -> dict[str, np.ndarray]:
        """Metric → (Q,) values of the hybrid."""
        qrels = self.queries.qrels
        pairs = (qrels.query_rows, qrels.document_rows)
        ranking = fusion(self.dense.ranking, self.bm25.ranking, order=self.corpus.order, pairs=pairs)
        return evaluate(ranking.ranks, qrels, DEFAULT_METRICS, self.queries.threshold)

    def tuned(self, metric: str) -> Fusion:
        """The fusion that serves these queries best."""
        return tune(
            self.dense.ranking,
            self.bm25.ranking,
            order=self.corpus.order,
            qrels=self.queries.qrels,
            metric=metric,
            split=self.queries.name,
            data=self.corpus.source.fingerprint(),
            checkpoint=self.encoder.fingerprint,
            threshold=self.queries.threshold,
        )


def _fusion(run: Run, here: _Collection) -> Fusion:
    """How the run is fused with BM25: as its folder says, or chosen now, on its own validation queries."""
    path = run.path / "hybrid.json"
    stored = Fusion.read(path)
    if stored is not None and stored.checkpoint == here.encoder.fingerprint:
        return stored
    config = read(run.config)
    split = config["data"]["validation_split"]
    try:
        source = make_source(config["data"])
        same = split == here.queries.name and source.fingerprint() == here.corpus.source.fingerprint()
        own = here if same else _Collection(here.encoder, Corpus.load(source, here.encoder.tokenizer), split)
    except UserError as error:
        raise UserError(
            f"--hybrid chooses its weight once, on the run's own data, which cannot be read: {error}"
        ) from error
    fusion = own.tuned(config["validation"]["monitor"])
    fusion.write(path)
    return fusion


def _with_intervals(figures: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean, ``/low`` and ``/high`` of every figure, (Q,) each."""
    low, high = mean_interval(np.stack(list(figures.values()), axis=1))
    out: dict[str, float] = {}
    for (name, values), least, most in zip(figures.items(), low.tolist(), high.tolist(), strict=True):
        out |= {name: float(values.mean()), f"{name}/low": least, f"{name}/high": most}
    return out


def describe(results: Mapping[str, Any]) -> list[str]:
    """What `evaluate_run` returned, in lines for people."""
    systems = [system for system in ("dense", "bm25", "hybrid") if f"{system}/mrr@10" in results]
    lines = [
        f"{results['queries']:,} queries of '{results['split']}', each against all {results['documents']:,} passages; "
        "in brackets 95 % intervals (bootstrap over the queries); * differs from BM25 by more than chance (paired "
        "randomisation test, p < .05)",
        "",
        f"{'':<12}" + "".join(f"{'BM25' if system == 'bm25' else system:<24}" for system in systems).rstrip(),
    ]
    for metric in DEFAULT_METRICS:
        names = [f"{system}/{metric}" for system in systems]
        cells = [_cell(results, name) for name in names]
        lines.append(f"{metric:<12}" + "".join(f"{cell:<24}" for cell in cells).rstrip())
    return lines + _about_fusion(results)


def _cell(results: Mapping[str, Any], name: str) -> str:
    star = " *" if results.get(f"{name}/p_vs_bm25", 1) < 0.05 else ""
    return f"{results[name]:.3f} [{results[f'{name}/low']:.3f}, {results[f'{name}/high']:.3f}]{star}"


def _about_fusion(results: Mapping[str, Any]) -> list[str]:
    if "fusion/method" not in results:
        return []
    weight, split, metric = (results[f"fusion/{key}"] for key in ("weight", "split", "metric"))
    how = "reciprocal rank fusion" if weight is None else f"a weighted sum of scores, {weight:g} for the tower"
    lines = ["", f"hybrid: {how}, chosen by {metric} on '{split}' of the run's own data (hybrid.json)."]
    if results["fusion/chosen_here"]:
        lines.append("It was chosen on these very queries, which flatters its figures: those of another split do not.")
    return lines
