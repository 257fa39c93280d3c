"""A few validation queries up close: the rank of the right passage in each evaluation, and what comes first."""

from __future__ import annotations

import unicodedata
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
from rich.text import Text

from two_tower.cache import entry, key_of
from two_tower.console import say
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.logger import run_loggers
from two_tower.metrics import reciprocal_rank
from two_tower.validation._evaluate import Evaluation
from two_tower.validation.full import FullValidation

BEGINNING = 160  # characters of a passage that are kept to be shown
BEGINNINGS_VERSION = 1  # raise whenever the cached beginnings would be others
MAX_RANKS = 10  # of a query in one line; of more evaluations, those in the middle are left out
COLUMNS = ["check", "query", "rank", "before", "untrained", "BM25"]


@dataclass
class Sample:
    """A query's rows over the evaluations. Ranks are those of its best-ranked right passage; 0 = not retrieved."""

    row: int  # of the query in its split
    text: str
    bm25: int | None  # its rank by BM25; None where that was not measured
    untrained: int | None  # its rank before training; None where that was not measured
    ranks: list[int] = field(default_factory=list)  # in every evaluation
    hits: list[list[Any]] = field(default_factory=list)  # the newest one's best passages: text, whether relevant

    def figures(self) -> list[int | None]:
        """The ranks of the newest evaluation, the one before, the untrained towers and BM25; None if there is none."""
        before = self.ranks[-2] if len(self.ranks) > 1 else self.untrained
        return [rank or None for rank in (self.ranks[-1], before, self.untrained, self.bm25)]

    def path(self) -> str:
        """``untrained 812 → 40 → 7  (BM25 3)``."""
        ranks, half = [_shown(rank) for rank in self.ranks], MAX_RANKS // 2
        if len(ranks) > MAX_RANKS:
            ranks = [*ranks[:half], "…", *ranks[-half:]]
        start = [] if self.untrained is None else [f"untrained {_shown(self.untrained)}"]
        return " → ".join([*start, *ranks]) + ("" if self.bm25 is None else f"  (BM25 {_shown(self.bm25)})")


class SampleQueries(Callback):
    """Shows how the ranking of a few queries changes, on the console and in every logger.

    The queries are spread evenly from the easiest to the hardest for BM25 (where that is not measured, for the
    untrained towers): a random few may all be easy. BM25 knows no run, so all on a collection show the same queries.
    """

    def __init__(
        self, validation: FullValidation, queries: int = 5, hits: int = 3,
        console: Literal["end", "each", "never"] = "end",
    ) -> None:  # fmt: skip
        for key, value, minimum in (("queries", queries, 1), ("hits", hits, 0)):
            if value < minimum:
                raise ValueError(f"{key}={value} must be at least {minimum}; ~callbacks.samples leaves the table out")
        self._validation, self._queries, self._hits, self._console = validation, queries, hits, console
        self.samples: list[Sample] = []
        self._texts: pa.ChunkedArray

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the queries, unless a continued run has them already."""
        if not trainer.is_global_zero:
            return
        self._texts, split = beginnings(self._validation.corpus), self._validation.queries_split
        if self.samples:
            return
        measured = (self._validation.bm25_evaluation, self._validation.baseline)
        bm25, untrained = (None if each is None else first_ranks(each, split) for each in measured)
        difficulty = next((ranks for ranks in (bm25, untrained) if ranks is not None), np.zeros(len(split), np.int64))
        answerable = split.qrels.sum(split.qrels.relevant(split.threshold)) > 0
        for row in spread(difficulty, np.flatnonzero(answerable), self._queries):
            of_bm25, of_untrained = (None if each is None else int(each[row]) for each in (bm25, untrained))
            self.samples.append(Sample(row, split.texts[row].as_py(), of_bm25, of_untrained))

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Note ranks and passages of an evaluation that was just made, and show them."""
        latest, split = self._validation.latest, self._validation.queries_split
        if not (trainer.is_global_zero and self._validation.just_evaluated and latest is not None):
            return
        ranks = first_ranks(latest, split)
        qrels, relevant = split.qrels, split.qrels.relevant(split.threshold)
        right = {*zip(qrels.query_rows[relevant].tolist(), qrels.document_rows[relevant].tolist(), strict=True)}
        columns = [*COLUMNS, *(f"hit {place + 1}" for place in range(self._hits))]
        name, data = self._validation.latest_name, list[list[Any]]()
        for s in self.samples:
            s.ranks.append(int(ranks[s.row]))
            best = latest.ranking.rows[s.row, : self._hits].tolist()
            s.hits = [[self._texts[row].as_py(), (s.row, row) in right] for row in best if row >= 0]
            cells = [f"✓ {plain(text)}" if relevant else plain(text) for text, relevant in s.hits]
            data.append([name, plain(s.text), *s.figures(), *cells, *[""] * (self._hits - len(cells))])
        for logger in run_loggers(trainer.loggers):
            logger.log_table(key="val/samples", columns=columns, data=data, step=trainer.global_step - 1)
        if self._console == "each":
            head = f"{'':<4}{'now':>9}{'before':>9}{'untrained':>11}{'BM25':>9}   rank of the best right passage of"
            say(head, style="dim")
            for sample in self.samples:
                now, before, untrained, bm25 = map(_shown, sample.figures())
                _line(f"{'':<4}{now:>9}{before:>9}{untrained:>11}{bm25:>9}   ", sample.text)

    on_train_epoch_end = on_train_batch_end

    def show(self) -> None:
        """Show the queries at the end, also of a run that was interrupted after its last epoch."""
        evaluated = [sample for sample in self.samples if sample.ranks]
        if self._console != "end" or not evaluated:
            return
        say("\nSample queries: the rank of the best right passage at every check", style="bold")
        say(f"and the first passages at {self._validation.latest_name}, where ✓ marks a right one", style="dim")
        for sample in evaluated:
            say("")
            _line("  ", sample.text)
            say(f"    {sample.path()}")
            for place, (text, relevant) in enumerate(sample.hits, 1):
                _line(f"    {place:>2} {'✓' if relevant else ' '} ", text, style="" if relevant else "dim")

    def state_dict(self) -> dict[str, Any]:
        return {"samples": [asdict(sample) for sample in self.samples]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.samples = [Sample(**sample) for sample in state_dict["samples"]]


def first_ranks(evaluation: Evaluation, split: Split) -> np.ndarray:
    """(Q,) int64, the rank of each query's best-ranked relevant passage; 0 where none was retrieved."""
    reciprocal = reciprocal_rank(evaluation.ranking.ranks, split.qrels, threshold=split.threshold)
    ranks = np.divide(1, reciprocal, out=np.zeros(len(reciprocal)), where=reciprocal > 0)
    return np.rint(ranks).astype(np.int64)


def spread(ranks: np.ndarray, rows: np.ndarray, count: int) -> list[int]:
    """Up to ``count`` of some ascending rows: the middles of equally large parts, from the easiest to the hardest.

    ``ranks`` (Q,) int64 are the difficulty, 0 (not retrieved) the hardest. Of equal ranks the earlier row comes first.
    """
    difficulty = np.where(ranks[rows] > 0, ranks[rows], np.iinfo(np.int64).max)
    ordered = rows[np.argsort(difficulty, kind="stable")]
    count = min(count, len(rows))
    borders = [-(-len(rows) * part // count) for part in range(count + 1)] if count else []
    return [int(ordered[(first + stop - 1) // 2]) for first, stop in pairwise(borders)]


def beginnings(corpus: Corpus) -> pa.ChunkedArray:
    """(N,) each passage's title, or without one the beginning of its text, memory-mapped.

    Cached per collection: 31,000 passages in JSON take 0.6 s to read, longer than an evaluation on them.
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


def _shown(rank: int | None) -> str:
    return f"{rank:,}" if rank else "–"


def _line(start: str, text: str, style: str = "") -> None:
    """Print a line that ends with someone else's text, cut to the terminal's width."""
    rich.get_console().print(Text(start + plain(text), style=style), no_wrap=True, overflow="ellipsis")


def plain(text: str) -> str:
    """On one line, without characters that a terminal would obey: line ends, escapes, changes of direction."""
    return " ".join("".join(" " if unicodedata.category(c)[0] == "C" else c for c in text).split())
