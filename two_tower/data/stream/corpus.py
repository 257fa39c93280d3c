"""From string ids to rows: the corpus, and a split's queries and judgements; parsed once, later memory-mapped."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import entry, key_of, notice
from two_tower.console import Advance, counter
from two_tower.data.base import QUERIES, PartOfSource, Source, full_text, take_rows
from two_tower.data.stream.token_store import TokenWriter, read_tokens
from two_tower.errors import UserError
from two_tower.metrics import Qrels
from two_tower.ragged import Ragged
from two_tower.ranking import id_order
from two_tower.threads import prefetch
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer

log = logging.getLogger(__name__)

LAYOUT = 4  # raise whenever the files in the cache, or their content, change
VOCABULARY_TRIPLETS = 1_000_000  # a vocabulary is trained on their queries; all 40 million of MS MARCO take minutes


def rows_of(ids: pa.Array | pa.ChunkedArray, among: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """int64 row of each id in ``among``; -1 where it does not occur."""
    if isinstance(among, pa.ChunkedArray):
        among = among.combine_chunks()
    return pc.fill_null(pc.index_in(ids, value_set=among), -1).to_numpy().astype(np.int64)


def _read_arrow(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


@dataclass(frozen=True, eq=False)
class Corpus:
    """All passages of a source, in its order."""

    source: Source
    ids: pa.ChunkedArray  # (N,) string ids
    tokens: Ragged  # N texts, title and text together
    hashes: np.ndarray  # (N,) uint64, equal for equal tokens
    written: np.ndarray  # (N,) uint64, equal for equal texts, letter by letter; 0 without words
    order: np.ndarray  # (N,) int64, place of each id in ascending byte order; decides between equal scores

    @classmethod
    def load(cls, source: Source, tokenizer: Tokenizer) -> Corpus:
        key = key_of(LAYOUT, source.fingerprint(), tokenizer.fingerprint)
        folder = entry("corpus", key, lambda path: _write_corpus(path, source, tokenizer))
        ids = _read_arrow(folder / "ids.arrow")["id"]
        return cls(source, ids, *read_tokens(folder, "documents"), np.load(folder / "order.npy", mmap_mode="r"))

    def __len__(self) -> int:
        return len(self.ids)

    def texts(self) -> pa.ChunkedArray:
        """(N,) texts as towers and BM25 see them, read from the source again."""
        return pa.chunked_array([full_text(b) for b in self.source.corpus()], pa.string())

    def is_new(self, learned: np.ndarray) -> np.ndarray:
        """(N,) bool: the passages whose text, letter by letter, is not among those of the hashes ``learned``.

        One without words can be neither learned nor found.
        """
        return (self.written != 0) & ~np.isin(self.written, learned)


def _write_corpus(folder: Path, source: Source, tokenizer: Tokenizer) -> None:
    schema = pa.schema([("id", pa.string())])
    with (
        counter(f"Tokenising {source.name}", "passages") as progress,
        pa.ipc.new_file(folder / "ids.arrow", schema) as ids,
        TokenWriter(folder, "documents") as tokens,
    ):
        for batch in prefetch(source.corpus()):
            texts = full_text(batch)
            tokens.append(tokenizer.encode_documents(texts), texts)
            ids.write_batch(batch.select(["id"]).cast(schema))
            progress(len(batch))
    if tokens.texts == 0:
        raise UserError(f"The corpus of {source.name} is empty: there is nothing to search.")
    np.save(folder / "order.npy", id_order(_read_arrow(folder / "ids.arrow")["id"]))
    log.info("%s: parsed and tokenised %d passages %s.", source.name, tokens.texts, progress)


@dataclass(frozen=True, eq=False)
class Split:
    """The queries of one split and their judgements, in rows of this split and of the corpus."""

    name: str  # ``train``, ``dev`` or ``test``
    ids: pa.ChunkedArray  # (Q,) string ids
    texts: pa.ChunkedArray  # (Q,) the queries
    tokens: Ragged  # Q texts
    hashes: np.ndarray  # (Q,) uint64, equal for equal tokens
    written: np.ndarray  # (Q,) uint64, equal for equal texts, letter by letter; 0 without words
    qrels: Qrels  # judgements; row -1 for documents that the corpus lacks
    threshold: int = 1  # the lowest relevant grade, for metrics that know only yes and no
    known: np.ndarray | None = None  # (Q,) bool, which queries have a word of the vocabulary; None = all
    # (Q,) int64, the passage with the query's own id, which is not ranked for it; -1 where there is none, None = never.
    same: np.ndarray | None = None

    @classmethod
    def load(cls, corpus: Corpus, name: str, tokenizer: Tokenizer, exclude_same_id: bool = False) -> Split:
        """Judgements of unknown queries are dropped; those of unknown documents count as missed. Both are reported."""
        source = corpus.source
        key = key_of(LAYOUT, source.fingerprint(), tokenizer.fingerprint, name)
        folder = entry("split", key, lambda path: _write_split(path, corpus, name, tokenizer))
        stored = read_tokens(folder, "queries")
        table = _read_arrow(folder / "queries.arrow")
        with np.load(folder / "qrels.npz") as saved:
            qrels = Qrels(saved["query_rows"], saved["document_rows"], saved["grades"], table.num_rows)
        same = rows_of(table["id"], corpus.ids) if exclude_same_id else None
        threshold, known = source.relevant_grade(name), tokenizer.known(stored.tokens)
        return cls(name, table["id"], table["text"], *stored, qrels, threshold, known, same)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def relevant(self) -> tuple[np.ndarray, np.ndarray]:
        """(P,) int64 rows of the queries, and of the corpus's passages that are relevant to them."""
        relevant = self.qrels.relevant(self.threshold) & self.qrels.present
        return self.qrels.query_rows[relevant], self.qrels.document_rows[relevant]


def _write_split(folder: Path, corpus: Corpus, name: str, tokenizer: Tokenizer) -> None:
    source = corpus.source
    queries, judged = source.queries(name).select(QUERIES.names), source.qrels(name)
    if queries.num_rows == 0:
        raise UserError(f"The split {name} of {source.name} has no queries.")
    query_rows = rows_of(judged["query_id"], queries["id"])
    document_rows = rows_of(judged["document_id"], corpus.ids)
    known = query_rows >= 0
    if not known.all():
        notice(
            f"{source.name}, split {name}: {int((~known).sum())} of {len(known)} judgements name a query that does "
            "not exist; left out."
        )
    missing = int((document_rows[known] < 0).sum())
    if missing and missing == known.sum():
        raise UserError(
            f"No judgement of {source.name}, split {name}, names a passage of it: are they of another corpus?"
        )
    if missing:
        notice(
            f"{source.name}, split {name}: {missing} of {len(known)} judgements name a passage that does not exist; "
            "nothing is trained on it, and a search that looks for it counts as having missed it."
        )
    rows = np.flatnonzero(known)
    rows = rows[np.argsort(query_rows[rows], kind="stable")]
    grades = judged["grade"].to_numpy()[rows].astype(np.int32)
    np.savez(folder / "qrels.npz", query_rows=query_rows[rows], document_rows=document_rows[rows], grades=grades)
    with pa.ipc.new_file(folder / "queries.arrow", QUERIES) as file:
        file.write_table(queries.cast(QUERIES))
    with TokenWriter(folder, "queries") as tokens:
        tokens.append(tokenizer.encode_queries(queries["text"]), queries["text"])
    log.info("%s: parsed and tokenised %d queries of %s.", source.name, len(queries), name)


def trained_tokenizer(source: Source, tokenizer: WordTokenizer, split: str) -> Tokenizer:
    """A tokenizer trained on all passages and the queries of the training split; kept in the cache.

    Without such a split, it is trained on the queries of the first triplets of texts, if there are any.
    """

    def train(folder: Path) -> None:
        with counter(f"Counting the words of {source.name}", "texts") as progress:
            trained = tokenizer.train(_TrainingTexts(source, split, progress))
        trained.save(folder / "tokenizer.json")
        if trained.rule and tokenizer.language is None:
            languages = ", ".join(trained.rule.languages) or "no language"
            log.info("%s: texts parsed as %s, %d words %s.", source.name, languages, len(trained), progress)

    key = key_of(LAYOUT, source.fingerprint(), split, *sorted(vars(tokenizer).items()))
    return Tokenizer.load(entry("tokenizer", key, train) / "tokenizer.json")


@dataclass(frozen=True)
class _TrainingTexts:
    """What a vocabulary is trained on; the source is read each time."""

    source: Source
    split: str
    progress: Advance

    def __iter__(self) -> Iterator[pa.Array | pa.ChunkedArray]:
        for texts in self._texts():
            yield texts
            self.progress(len(texts))

    def _texts(self) -> Iterator[pa.Array | pa.ChunkedArray]:
        for batch in self.source.corpus():
            yield full_text(batch)
        if self.split in self.source.splits():
            yield self.source.queries(self.split)["text"]
            return
        seen = 0
        for batch in self.source.text_triplets() or ():
            yield batch.column("query")
            seen += len(batch)
            if seen >= VOCABULARY_TRIPLETS:
                return


def part_of(corpus: Corpus, split: Split, rows: np.ndarray) -> tuple[Corpus, Split]:
    """Some passages of a corpus, (n,) int64 ascending rows, and a split with its judgements in rows of this part.

    The part must hold every passage that is judged for a query. Memory grows with it alone: the corpus may be
    memory-mapped and larger than memory.
    """
    part = replace(
        corpus,
        source=PartOfSource(corpus.source, rows),
        ids=pa.chunked_array(list(take_rows(corpus.ids.chunks, rows)), corpus.ids.type),
        tokens=corpus.tokens.select(rows),
        hashes=corpus.hashes[rows],
        written=corpus.written[rows],
        order=np.argsort(np.argsort(corpus.order[rows])),  # places among the part's ids
    )

    def places(of: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(rows, of), len(rows) - 1)
        return np.where(rows[at] == of, at, -1)

    qrels = replace(split.qrels, document_rows=places(split.qrels.document_rows))
    return part, replace(split, qrels=qrels, same=None if split.same is None else places(split.same))
