"""What the page opens with: the mode that suits a run best, as far as is known, and questions to try."""

from __future__ import annotations

from collections.abc import Sequence

from two_tower.config.saved import read
from two_tower.errors import UserError
from two_tower.files import read_json
from two_tower.metrics import read_per_query
from two_tower.run import Run
from two_tower.search import Mode, Searcher

EXAMPLES = 3  # of a run
EXAMPLE_LENGTH = 80  # characters that fit on a line
# By which names results.json has the modes' figures; of equal ones the first counts.
_FIGURES: dict[Mode, str] = {"hybrid": "hybrid", "dense": "val", "bm25": "bm25"}


def best_mode(searcher: Searcher, modes: Sequence[Mode]) -> Mode:
    """The best of some modes on the run's validation queries; where nothing is known, the hybrid if it is one of them.

    How the run is fused says it: a weight of 1 is dense, one of 0 BM25, and any other was not worse than these. Else
    the figures of training do, if they are of the collection that is searched.
    """
    if "hybrid" not in modes:
        return modes[0]
    if searcher.fusion.split:  # it was chosen on queries
        ends: dict[float | None, Mode] = {0.0: "bm25", 1.0: "dense"}
        return ends.get(searcher.fusion.weight, "hybrid")
    figures = _figures(searcher.run) if searcher.run and _is_own(searcher, searcher.run) else {}
    return max(figures, key=lambda mode: figures[mode]) if len(figures) > 1 else "hybrid"


def examples(searcher: Searcher) -> list[str]:
    """Up to three validation queries of the run, from all over; none where another collection is searched."""
    if searcher.run is None or not _is_own(searcher, searcher.run):
        return []
    try:
        texts = read_per_query(searcher.run.path / "per_query.csv").texts
    except UserError:  # there are none
        return []
    fitting = [text for text in dict.fromkeys(texts) if text.strip() and len(text) <= EXAMPLE_LENGTH]
    count = min(EXAMPLES, len(fitting))
    return [fitting[(2 * part + 1) * len(fitting) // (2 * count)] for part in range(count)]


def _is_own(searcher: Searcher, run: Run) -> bool:
    data = read_json(run.data)
    return data is not None and data["fingerprint"] == searcher.store.manifest.corpus


def _figures(run: Run) -> dict[Mode, float]:
    """What the best epoch's modes score by the metric that chose it, of those that were measured."""
    results, metric = run.read_results() or {}, read(run.config)["validation"]["monitor"]
    return {mode: results[key] for mode, name in _FIGURES.items() if (key := f"{name}/{metric}") in results}
