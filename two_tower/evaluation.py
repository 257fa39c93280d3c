"""A finished run on any collection: what ``two-tower evaluate`` does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from two_tower.cache import notice
from two_tower.config import read
from two_tower.console import counter
from two_tower.data.base import JUDGED_ENOUGH, Source
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.encode import Encoder
from two_tower.errors import UserError, in_a_sentence
from two_tower.files import write_text
from two_tower.fusion import DEPTH, EVEN, Fusion, Judged, tune
from two_tower.loading import make_source, own_source
from two_tower.metrics import BRIEF_METRICS, DEFAULT_METRICS, from_ranks, write_per_query
from two_tower.metrics.significance import LEGEND, Values, cell, figures_of
from two_tower.ranking import Ranking, write_run
from two_tower.run import Run
from two_tower.validation._evaluate import rank_split, rank_split_by_bm25
from two_tower.validation._groups import GROUPS, NAMES, NEW, SEEN, QueryGroups


def evaluate_run(
    path: Path, data: Mapping[str, Any] | None, split: str, hybrid: bool = False, output: Path | None = None
) -> dict[str, Any]:
    """Metrics of a run's best checkpoint and of BM25 on one split, over its whole corpus.

    ``data`` is the configuration of a data source, or None for the run's own. With ``hybrid`` the two are fused as
    well. How is chosen once, on the validation split of the run's own data, and kept as ``hybrid.json``. The folder
    ``output`` gets the rankings (``SYSTEM.trec``), the judgements (``qrels.trec``) and ``per_query.csv``.

    The keys are ``SYSTEM/METRIC`` of ``dense``, ``bm25`` and perhaps ``hybrid``, with the ends of its 95 % bootstrap
    interval (``…/low``, ``…/high``) and p-values of the paired randomisation test, uncorrected, for the difference from
    the others (``…/p_vs_bm25``, ``…/p_vs_dense``); ``documents``, ``queries``, ``split``; with the hybrid
    ``fusion/method``, ``/weight``, ``/split``, ``/metric`` and ``/chosen_here``: on these very queries. Of a collection
    that holds passages which the run has not learned from, ``learned_documents``; and if it holds both kinds,
    ``SYSTEM_GROUP/METRIC`` and ``queries_GROUP`` for each group of `QueryGroups`.
    """
    run = Run.existing(path)
    source, settings = make_source(data) if data else own_source(run), data or read(run.config)["data"]
    ranked = _RankedSplit.load(
        Encoder.of_collection(run, source), source, split, settings.get("exclude_same_id", False)
    )
    fusion = _fusion(run, ranked) if hybrid else None
    if output is not None:
        ranked.write(output, source, fusion)
    results: dict[str, Any] = figures_of(ranked.per_query(fusion))
    results |= {"documents": len(ranked.corpus), "queries": len(ranked.queries), "split": split}
    if fusion is not None:
        results |= {f"fusion/{key}": getattr(fusion, key) for key in ("method", "weight", "split", "metric")}
        results["fusion/chosen_here"] = (fusion.data, fusion.split) == (source.fingerprint(), split)
    return results | _of_groups(ranked, run.read_learned(), fusion)


def _of_groups(ranked: _RankedSplit, learned: np.ndarray | None, fusion: Fusion | None) -> dict[str, Any]:
    """The figures of the queries whose passages were learned from, and of those whose passages are new."""
    if learned is None:
        return {}
    new = ranked.corpus.is_new(learned)
    results: dict[str, Any] = {"learned_documents": int((~new).sum())} if new.any() else {}
    groups = QueryGroups.find(ranked.corpus, ranked.queries, new)
    if groups is None or new.all():
        return results
    among_new = _RankedSplit(ranked.encoder, groups.corpus, groups.split)
    for group in (group for group in GROUPS if groups.of(group).any()):
        its = (among_new if group == NEW else ranked).per_query(fusion)
        systems = {f"{system}_{group}": groups.per_query(group, values) for system, values in its.items()}
        results |= {f"queries_{group}": int(groups.of(group).sum()), **figures_of(systems)}
    return results


class _RankedSplit:
    """The queries of a split, ranked by a run's towers and by BM25 over all passages of a corpus."""

    def __init__(self, encoder: Encoder, corpus: Corpus, queries: Split) -> None:
        self.encoder, self.corpus, self.queries = encoder, corpus, queries
        with counter(f"Encoding {corpus.source.name}", "passages", len(corpus)) as progress:
            self.dense = rank_split(encoder.model, corpus, queries, DEPTH, progress=progress)
        self.bm25 = rank_split_by_bm25(corpus, queries, encoder.tokenizer, DEPTH)

    @classmethod
    def load(cls, encoder: Encoder, source: Source, split: str, exclude_same_id: bool) -> _RankedSplit:
        corpus = Corpus.load(source, encoder.tokenizer)
        return cls(encoder, corpus, Split.load(corpus, split, encoder.tokenizer, exclude_same_id))

    def per_query(self, fusion: Fusion | None) -> dict[str, Values]:
        """The figures of both, and perhaps of their fusion."""
        systems: dict[str, Values] = {"dense": self.dense.per_query, "bm25": self.bm25.per_query}
        return systems | ({} if fusion is None else {"hybrid": self.fused(fusion)})

    def fused(self, fusion: Fusion) -> Values:
        return from_ranks(self.fuse(fusion).ranks, self.queries.qrels, DEFAULT_METRICS, self.queries.threshold)

    def fuse(self, fusion: Fusion) -> Ranking:
        pairs = self.queries.qrels.pairs
        return fusion(self.dense.ranking, self.bm25.ranking, order=self.corpus.order, pairs=pairs)

    def write(self, folder: Path, source: Source, fusion: Fusion | None) -> None:
        """Write what trec_eval and tests of one's own need: 100 passages of each query, judgements, figures."""
        queries, rankings = self.queries, {"dense": self.dense.ranking, "bm25": self.bm25.ranking}
        rankings |= {} if fusion is None else {"hybrid": self.fuse(fusion)}
        folder.mkdir(parents=True, exist_ok=True)
        for system, ranking in rankings.items():
            cut = Ranking(ranking.rows[:, :DEPTH], ranking.scores[:, :DEPTH], ranking.ranks)
            write_run(folder / f"{system}.trec", queries.ids, self.corpus.ids, cut, tag=system)
        judged = zip(*source.qrels(queries.name).to_pydict().values(), strict=True)
        lines = (f"{query}\t0\t{passage}\t{grade}\n" for query, passage, grade in judged)
        write_text(folder / "qrels.trec", "".join(lines))
        values = {
            metric if system == "dense" else f"{system}/{metric}": column
            for system, its in self.per_query(fusion).items() for metric, column in its.items()
        }  # fmt: skip
        write_per_query(folder / "per_query.csv", queries.ids.to_pylist(), values, queries.texts.to_pylist())

    def best_fusion(self, metric: str, learned: np.ndarray | None) -> Fusion:
        """Chosen on the queries whose passages are not among the ``learned`` ones, if there are enough of them."""
        groups = None
        if learned is not None:
            groups = QueryGroups.find(self.corpus, self.queries, self.corpus.is_new(learned))
        unseen = groups.unseen if groups and groups.unseen.sum() >= JUDGED_ENOUGH else None
        judged = Judged(self.corpus.order, self.queries.qrels, metric, self.queries.name, self.queries.threshold)
        best = tune(self.dense.ranking, self.bm25.ranking, judged, unseen)
        data, checkpoint = self.corpus.source.fingerprint(), self.encoder.fingerprint
        return replace(best, data=data, checkpoint=checkpoint, unseen=unseen is not None)


def _fusion(run: Run, ranked: _RankedSplit) -> Fusion:
    """As the run's folder says, or chosen now, on its own validation queries; `EVEN` if these say nothing of others."""
    fusion = Fusion.read(run.hybrid, ranked.encoder.fingerprint)
    known = run.has_learned(ranked.corpus.source.fingerprint())
    if fusion is None and (known or run.keeps_out):
        fusion = _chosen(run, ranked)
    return fusion if fusion is not None and (known or fusion.unseen) else EVEN


def _chosen(run: Run, ranked: _RankedSplit) -> Fusion:
    config = read(run.config)
    split = config["data"]["validation_split"]
    try:
        source = own_source(run)
        exclude, queries = config["data"].get("exclude_same_id", False), ranked.queries
        same = (split, exclude) == (queries.name, queries.same is not None)
        same = same and source.fingerprint() == ranked.corpus.source.fingerprint()
        own = ranked if same else _RankedSplit.load(ranked.encoder, source, split, exclude)
    except UserError as error:
        remark = "--hybrid chooses its weight once, on the run's own data, which cannot be read"
        raise UserError(f"{remark}: {error}") from error
    fusion = own.best_fusion(config["validation"]["monitor"], run.read_learned())
    try:
        fusion.write(run.hybrid)
    except OSError as error:  # it is chosen anew each time
        notice(f"{in_a_sentence(error)}; how the run is fused is not kept.")
    return fusion


def describe(results: Mapping[str, Any]) -> list[str]:
    """What `evaluate_run` returned, in lines for people."""
    systems = [system for system in ("dense", "bm25", "hybrid") if f"{system}/mrr@10" in results]
    heads = ["BM25" if system == "bm25" else system for system in systems]
    lines = [
        f"{results['queries']:,} queries of '{results['split']}', each against all {results['documents']:,} passages; "
        + LEGEND,
        "",
        _line("", heads),
        *(_line(metric, [cell(results, f"{system}/{metric}") for system in systems]) for metric in DEFAULT_METRICS),
        *_group_lines(results, systems, heads),
    ]
    if "fusion/method" not in results:
        return lines
    weight, split, metric = (results[f"fusion/{key}"] for key in ("weight", "split", "metric"))
    how = "reciprocal rank fusion" if weight is None else f"a weighted sum of scores, {weight:g} for the tower"
    why = f"chosen by {metric} on '{split}' of the run's own data (hybrid.json)"
    if not split:
        why = "whatever the queries: the run's own look for passages that it has learned from"
    lines += ["", f"hybrid: {how}, {why}."]
    hybrid, bm25 = results["hybrid/mrr@10"], results["bm25/mrr@10"]
    if hybrid < bm25:
        figures = f"mrr@10 {hybrid:.3f}, BM25 {bm25:.3f}"
        lines.append(f"It is below BM25 here ({figures}): search these passages by BM25, or train a run on them.")
    if results["fusion/chosen_here"]:
        lines.append("It was chosen on these very queries, which flatters its figures: those of another split do not.")
    return lines


def _group_lines(results: Mapping[str, Any], systems: Sequence[str], heads: Sequence[str]) -> list[str]:
    """How many of the passages the run was trained on, and what that is worth."""
    if "learned_documents" not in results:
        return []
    learned, documents = results["learned_documents"], results["documents"]
    lines = ["", f"The run was trained on {learned:,} of the {documents:,} passages."]
    if f"queries_{NEW}" not in results:
        return lines
    lines.append(
        f"{results.get(f'queries_{SEEN}', 0):,} queries have their answers among these (seen); those of "
        f"{results['queries_unseen']:,} are new (unseen), and are ranked once more among the new passages only."
    )
    groups = [group for group in GROUPS if f"queries_{group}" in results]
    for metric in BRIEF_METRICS:
        lines += ["", _line(metric, heads)]
        lines += [_line(NAMES[g], [cell(results, f"{system}_{g}/{metric}") for system in systems]) for g in groups]
    return lines


def _line(name: str, cells: Iterable[str]) -> str:
    return f"{name:<12}" + "".join(f"{cell:<24}" for cell in cells).rstrip()
