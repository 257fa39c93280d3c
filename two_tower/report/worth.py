"""What a run is worth beside BM25, in all and on single queries: the results of its card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.callbacks.samples import beginnings, plain
from two_tower.metrics import BRIEF_METRICS, PerQuery
from two_tower.metrics.significance import (
    LEGEND,
    SIGNIFICANT,
    Values,
    cell,
    clearest,
    figures_of,
    paired_differences,
)
from two_tower.ranking.base import read_first
from two_tower.report.blocks import Block, Heading, Table
from two_tower.validation._groups import NAMES, NEW, SEEN, UNSEEN
from two_tower.validation.full import FullValidation

SHOWN = 150  # characters of a text
EXAMPLES = 3  # queries of each kind that are shown
_HEADS = {"dense": "this model", "bm25": "BM25", "hybrid": "both fused"}


def worth(per_query: PerQuery, validation: FullValidation) -> list[Block]:
    """A table of the best check beside BM25 and their fusion, with intervals, on all queries and each group of them."""
    metrics = [m for m in dict.fromkeys((validation.monitor, *BRIEF_METRICS)) if m in per_query.values]
    systems = _systems(per_query, metrics)
    figures = figures_of(systems)
    rows = [[metric, *(cell(figures, f"{system}/{metric}") for system in systems)] for metric in metrics]
    if groups := validation.query_groups:
        for group in (group for group in (SEEN, UNSEEN) if groups.of(group).any()):
            its = figures_of({system: groups.per_query(group, values) for system, values in systems.items()})
            name = NAMES[group]
            rows += [
                [f"{metric}, {name}", *(cell(its, f"{system}/{metric}") for system in systems)] for metric in metrics
            ]
        rows += [[f"{metric}, {NAMES[NEW]}", *_among_new(validation, systems, metric)] for metric in metrics]
    signs = LEGEND.replace("*", r"\*")
    legend = f"{validation.queries:,} queries of `{validation.split}`; {signs}."
    if "hybrid" in systems:
        legend += " Fused, each half of the queries is weighted as was best for the other half."
    if validation.query_groups:
        legend += (
            " Seen: the answers were trained on; unseen: they were not; among new: these again, among passages that "
            "were not trained on only."
        )
    return [Table(["", *(_HEADS[system] for system in systems)], rows), legend, *_verdict(figures, validation.monitor)]


def _systems(per_query: PerQuery, metrics: Sequence[str]) -> dict[str, Values]:
    """``dense``, ``bm25`` and ``hybrid``, as far as they were measured."""
    prefixes = {"dense": "", "bm25": "bm25/", "hybrid": "hybrid/"}
    values = per_query.values
    return {
        system: {metric: values[f"{prefix}{metric}"] for metric in metrics}
        for system, prefix in prefixes.items()
        if all(f"{prefix}{metric}" in values for metric in metrics)
    }


def _among_new(validation: FullValidation, systems: Mapping[str, Values], metric: str) -> list[str]:
    """The means of the unseen queries among new passages, whose single figures are not kept."""
    found = {
        "dense": (validation.best or {}).get(f"val_{NEW}/{metric}"),
        "bm25": validation.groups.get(f"bm25_{NEW}/{metric}"),
    }
    return ["" if (value := found.get(system)) is None else f"{value:.3f}" for system in systems]


def _verdict(figures: Mapping[str, float], metric: str) -> list[Block]:
    p = figures.get(f"dense/{metric}/p_vs_bm25")
    if p is None:
        return []
    difference = figures[f"dense/{metric}"] - figures[f"bm25/{metric}"]
    side = "above" if difference > 0 else "below"
    chance = "more than chance" if p < SIGNIFICANT else "which may be chance"
    size = "< .001" if p < 0.001 else f"= {p:.3f}".replace("0.", ".", 1)
    return [f"Its {metric} is {abs(difference):.3f} {side} BM25's, {chance} (p {size})."]


def examples(per_query: PerQuery, validation: FullValidation, ranking: Path) -> list[Block]:
    """The queries on which the run is best and worst beside BM25: what was wanted, and what it found first.

    ``ranking`` is the run's ``run.trec``. Of the corpus only the beginnings of these texts are read.
    """
    metric, values = validation.monitor, per_query.values
    if f"bm25/{metric}" not in values:
        return ["BM25 was not measured, so nothing is better or worse than it."]
    own, bm25 = values[metric], values[f"bm25/{metric}"]
    differences = paired_differences(own, bm25)
    best, worst = (clearest(differences, sign, EXAMPLES) for sign in (1, -1))
    answers, shown = _answers(per_query, validation, ranking, [*best, *worst]), per_query.texts
    more, fewer = (int((np.sign(differences) == sign).sum()) for sign in (1, -1))
    blocks: list[Block] = [f"By {metric} it is better than BM25 on {more:,} queries and worse on {fewer:,}."]
    for title, rows in (("Best beside BM25", best), ("Worst beside BM25", worst)):
        if rows:
            blocks.append(Heading(title, 3))
            heads = [f"- “{_shown(shown[row])}” ({metric} {own[row]:.3f}, BM25 {bm25[row]:.3f})" for row in rows]
            blocks.append(
                "\n".join(line for row, head in zip(rows, heads, strict=True) for line in (head, *answers[row]))
            )
    return blocks


def _answers(
    per_query: PerQuery, validation: FullValidation, ranking: Path, queries: Sequence[int]
) -> dict[int, list[str]]:
    """What was wanted and what was found first, in lines, for each of some queries."""
    corpus, (judged, relevant) = validation.corpus, validation.queries_split.relevant
    first = read_first(ranking, [per_query.ids[query] for query in queries])
    found_ids = pa.array(sorted({*first.values()}), pa.string())
    rows = np.flatnonzero(pc.is_in(corpus.ids, value_set=found_ids).to_numpy())  # of all ids, but of few texts
    row_of = dict(zip(corpus.ids.take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True))
    texts = beginnings(corpus)
    lines = {}
    for query in queries:
        answers, found = relevant[judged == query], first.get(per_query.ids[query], "nothing")
        wanted = _shown(texts[int(answers[0])].as_py()) if len(answers) else "a passage that the collection lacks"
        # An id with blanks stands in the file with others, so it may not be found again.
        found = texts[row_of[found]].as_py() if found in row_of else found
        found = _shown(found)
        same = [f"    - wanted, and found first: {wanted}"]
        lines[query] = same if found == wanted else [f"    - wanted: {wanted}", f"    - found first: {found}"]
    return lines


def _shown(text: str) -> str:
    """Someone else's text on one line, cut, with no sign that Markdown or HTML would obey."""
    line = plain(text)
    line = line if len(line) <= SHOWN else line[: SHOWN - 2].rsplit(" ", 1)[0] + " …"
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", line)
