"""A few validation queries up close: the rank of the right passage from check to check, and what comes first."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rich
from lightning.pytorch.callbacks import Callback
from rich.cells import cell_len, set_cell_size

from two_tower.cache import entry, key_of
from two_tower.console import say
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.errors import UserError
from two_tower.metrics import reciprocal_rank
from two_tower.validation._evaluate import Evaluation
from two_tower.validation.full import FullValidation

__all__ = ["SampleQueries", "beginnings", "first_ranks", "spread"]

# Characters of a passage that are kept to be shown.
BEGINNING = 160
# Raise whenever the cached beginnings would be others.
BEGINNINGS_VERSION = 1
# Ranks of a query in one line; of more checks, those in the middle are left out.
MOST_RANKS = 10

COLUMNS = ["check", "query", "rank", "before", "untrained", "BM25"]


@dataclass
class Sample:
    """A query and what was seen of it. All ranks are those of its best-ranked right passage; 0 = not retrieved.

    Attributes:
        row: of the query in its split.
        text: the query.
        bm25: its rank by BM25; None where that was not measured.
        untrained: its rank before training; None where that was not measured.
        ranks: its rank in every check.
        hits: the best passages of the newest check, each with whether it is relevant.
    """

    row: int
    text: str
    bm25: int | None
    untrained: int | None
    ranks: list[int] = field(default_factory=list)
    hits: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def before(self) -> int | None:
        """The rank in the check before the newest; the untrained one for the first."""
        return self.ranks[-2] if len(self.ranks) > 1 else self.untrained


class SampleQueries(Callback):
    """Shows how the ranking of a few queries changes, on the console and in every logger that has ``log_table``.

    The queries are spread evenly from the easiest to the hardest for BM25 (where that is not measured, for the
    untrained towers): a random few may all be easy. As BM25 depends on the collection only, all runs on it show the
    same queries, so that they can be compared.

    Args:
        validation: whose checks are looked at.
        queries: how many.
        hits: how many of each one's best passages are shown.
        console: ``end``: when training ends, so that the table of checks stays a table; ``each``: after each check;
            ``never``.

    Raises:
        UserError: no queries are to be shown, or a negative number of hits.
    """

    def __init__(
        self,
        validation: FullValidation,
        queries: int = 5,
        hits: int = 3,
        console: Literal["end", "each", "never"] = "end",
    ) -> None:
        if queries < 1 or hits < 0:
            raise UserError(
                f"callbacks.samples.queries={queries} must be at least 1 and callbacks.samples.hits={hits} at least 0; "
                "leave the table out with ~callbacks.samples."
            )
        self._validation, self._queries, self._hits, self._console = validation, queries, hits, console
        self.samples: list[Sample] = []
        self._texts: pa.ChunkedArray

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the queries, unless a continued run has them already."""
        if trainer.is_global_zero:
            self._texts = beginnings(self._validation.corpus)
            self.samples = self.samples or self._chosen()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:  # noqa: ANN401
        """Look at a check within an epoch."""
        self._look(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the check of an epoch."""
        self._look(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the queries, also of a run that was interrupted after its last epoch; not of one that failed."""
        if trainer.is_global_zero and self._console == "end":
            _show_end(self.samples, self._validation.name_of_check)

    def _chosen(self) -> list[Sample]:
        split = self._validation.queries_split
        bm25, untrained = (
            None if evaluation is None else first_ranks(evaluation, split)
            for evaluation in (self._validation.bm25_evaluation, self._validation.baseline)
        )
        by = next((ranks for ranks in (bm25, untrained) if ranks is not None), np.zeros(len(split), np.int64))
        answerable = split.qrels.sum(split.qrels.relevant(split.threshold)) > 0
        return [
            Sample(
                row,
                split.texts[row].as_py(),
                None if bm25 is None else int(bm25[row]),
                None if untrained is None else int(untrained[row]),
            )
            for row in spread(by, np.flatnonzero(answerable), self._queries)
        ]

    def _look(self, trainer: L.Trainer) -> None:
        validation = self._validation
        if not (trainer.is_global_zero and validation.just_checked and validation.latest is not None):
            return
        ranks = first_ranks(validation.latest, validation.queries_split)
        for sample in self.samples:
            sample.ranks.append(int(ranks[sample.row]))
            best = validation.latest.ranking.rows[sample.row, : self._hits]
            right = _right_passages(sample.row, validation.queries_split)
            sample.hits = [(self._texts[int(row)].as_py(), int(row) in right) for row in best if row >= 0]
        self._log(trainer)
        if self._console == "each":
            _show_check(self.samples)

    def _log(self, trainer: L.Trainer) -> None:
        name = self._validation.name_of_check
        columns = [*COLUMNS, *(f"hit {place + 1}" for place in range(self._hits))]
        data = [[name, _plain(s.text), *_figures(s), *_cells(s.hits, self._hits)] for s in self.samples]
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                logger.log_table(key="val/samples", columns=columns, data=data, step=trainer.global_step - 1)

    def state_dict(self) -> dict[str, Any]:
        """The queries and what was seen of them, in plain lists."""
        return {"samples": [{**asdict(s), "hits": [list(hit) for hit in s.hits]} for s in self.samples]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the same queries."""
        self.samples = [Sample(**{**s, "hits": [(h[0], h[1]) for h in s["hits"]]}) for s in state_dict["samples"]]


def first_ranks(evaluation: Evaluation, split: Split) -> np.ndarray:
    """(Q,) int64, the rank of each query's best-ranked relevant passage; 0 where none was retrieved."""
    reciprocal = reciprocal_rank(evaluation.ranking.ranks, split.qrels, threshold=split.threshold)
    ranks = np.divide(1, reciprocal, out=np.zeros(len(reciprocal)), where=reciprocal > 0)
    return np.rint(ranks).astype(np.int64)


def spread(ranks: np.ndarray, rows: np.ndarray, count: int) -> list[int]:
    """Rows from the middles of equally large parts, from the easiest to the hardest.

    Args:
        ranks: (Q,) int64, 0 = not retrieved, which is hardest. Of equal ranks the earlier row comes first.
        rows: (n,) int64, the rows to choose from, ascending.
        count: how many; fewer if there are not as many rows.
    """
    difficulty = np.where(ranks[rows] > 0, ranks[rows], np.iinfo(np.int64).max)
    ordered = rows[np.argsort(difficulty, kind="stable")]
    count = min(count, len(rows))
    borders = [-(-len(rows) * part // count) for part in range(count + 1)] if count else []
    return [int(ordered[(first + stop - 1) // 2]) for first, stop in pairwise(borders)]


def beginnings(corpus: Corpus) -> pa.ChunkedArray:
    """(N,) of each passage its title, or without one the beginning of its text, memory-mapped.

    Written once per collection: a source of 31,000 passages in JSON takes 0.6 s to read, longer than a check of them.
    """
    schema = pa.schema([("text", pa.string())])

    def write(folder: Path) -> None:
        with pa.ipc.new_file(folder / "beginnings.arrow", schema) as file:
            for batch in corpus.source.corpus():
                title = pc.utf8_trim_whitespace(batch.column("title"))
                text = pc.if_else(pc.equal(pc.binary_length(title), 0), batch.column("text"), title)
                shown = pc.utf8_slice_codeunits(pc.utf8_ltrim_whitespace(text), 0, BEGINNING)
                file.write_batch(pa.record_batch([shown], schema=schema))

    folder = entry("beginnings", key_of(BEGINNINGS_VERSION, corpus.source.fingerprint()), write)
    return pa.ipc.open_file(pa.memory_map(str(folder / "beginnings.arrow"))).read_all()["text"]


def _right_passages(row: int, split: Split) -> set[int]:
    """The rows of the relevant passages of a query."""
    of_query = slice(*np.searchsorted(split.qrels.query_rows, (row, row + 1)))
    return set(split.qrels.document_rows[of_query][split.qrels.relevant(split.threshold)[of_query]].tolist()) - {-1}


def _figures(sample: Sample) -> list[int | None]:
    """The ranks of the newest check, the one before, the untrained towers and BM25; None where there is none."""
    return [rank or None for rank in (sample.ranks[-1], sample.before, sample.untrained, sample.bm25)]


def _cells(hits: Sequence[tuple[str, bool]], count: int) -> list[str]:
    """So many cells of a table, relevant passages marked."""
    marked = [f"✓ {_plain(text)}" if relevant else _plain(text) for text, relevant in hits]
    return [*marked, *[""] * (count - len(marked))]


def _show_end(samples: Sequence[Sample], check: str) -> None:
    """Print every query's ranks over the checks, and its best passages in the newest one."""
    seen = [sample for sample in samples if sample.ranks]
    if not seen:
        return
    say("\nSample queries: the rank of the best right passage at every check", style="bold")
    say(f"and the first passages at {check}, where ✓ marks a right one", style="dim")
    for sample in seen:
        say("")
        _line("  ", sample.text)
        bm25 = [] if sample.bm25 is None else [f"(BM25 {_rank(sample.bm25)})"]
        say("  ".join([f"    {_path(sample)}", *bm25]))
        for place, (text, relevant) in enumerate(sample.hits, 1):
            _line(f"    {place:>2} {'✓' if relevant else ' '} ", text, style=None if relevant else "dim")


def _show_check(samples: Sequence[Sample]) -> None:
    """Print a block of one line per query."""
    say(f"{'':<4}{'now':>9}{'before':>9}{'untrained':>11}{'BM25':>9}   rank of the best right passage of", style="dim")
    for sample in samples:
        now, before, untrained, bm25 = (_rank(rank) for rank in _figures(sample))
        _line(f"{'':<4}{now:>9}{before:>9}{untrained:>11}{bm25:>9}   ", sample.text)


def _path(sample: Sample) -> str:
    """``untrained 812 → 40 → 7``."""
    ranks = [_rank(rank) for rank in sample.ranks]
    if len(ranks) > MOST_RANKS:
        half = MOST_RANKS // 2
        ranks = [*ranks[:half], "…", *ranks[-half:]]
    start = [] if sample.untrained is None else [f"untrained {_rank(sample.untrained)}"]
    return " → ".join([*start, *ranks])


def _rank(rank: int | None) -> str:
    return f"{rank:,}" if rank else "–"


def _line(start: str, text: str, style: str | None = None) -> None:
    """Print a line that ends with someone else's text, shortened to the terminal's width."""
    width = max(rich.get_console().width - cell_len(start), 20)
    plain = _plain(text)
    say(start + (plain if cell_len(plain) <= width else set_cell_size(plain, width - 1).rstrip() + "…"), style=style)


def _plain(text: str) -> str:
    """On one line, without characters that a terminal would obey: line ends, escapes, changes of direction."""
    return " ".join("".join(" " if unicodedata.category(c)[0] == "C" else c for c in text).split())
