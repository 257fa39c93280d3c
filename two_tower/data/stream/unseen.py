"""Passages that are kept from everything that is learned, so that a run tells how it finds passages it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import entry, file_fingerprint, key_of, notice
from two_tower.console import counter
from two_tower.data.base import Loader, PartOfSource, Source, full_text
from two_tower.data.reading.delimited import TsvFile
from two_tower.data.reading.unique import hash_rows
from two_tower.errors import BadRows, UserError

_PARTS = ("rows", "ids", "texts")


def learned_part(source: Source, loader: Loader) -> Source:
    """What may be learned of a source: all of it, or a `LearnedPart` where the loader's keys keep passages out.

    These are a share of all different texts, by a hash, so a text stays on its side when others come or go; or those
    with the ids of a file. Copies of a text are on the same side.
    """
    share, ids = loader.unseen_share, None if loader.unseen_ids is None else Path(loader.unseen_ids).expanduser()
    if not share and ids is None:
        return source
    if ids is not None and not ids.is_file():
        raise UserError(f"data.unseen_ids={ids} is no file: it must hold the id of a passage on each line")
    key = key_of(source.fingerprint(), share, None if ids is None else file_fingerprint(ids))
    folder = entry("unseen", key, lambda path: _choose(path, source, share, ids))
    kept, *out = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in _PARTS)
    return LearnedPart(source, kept, *out)


def _choose(folder: Path, source: Source, share: float, file: Path | None) -> None:
    """Write the rows of the passages that stay; of the others the hashes of their ids and texts, ascending."""
    ids, texts = [], []
    with counter(f"Keeping passages of {source.name} out of training", "passages") as progress:
        for batch in source.corpus():
            ids.append(hash_rows(batch["id"]))
            texts.append(hash_rows(full_text(batch)))
            progress(len(batch))
    id_hashes, text_hashes = np.concatenate(ids), np.concatenate(texts)
    out = text_hashes < np.uint64(share * 2.0**64)
    if file is not None:
        out |= np.isin(id_hashes, _hashes_of_lines(file))
        if not out.any():
            raise UserError(f"data.unseen_ids={file} has no id of a passage of {source.name}: write one on each line")
    out = np.isin(text_hashes, text_hashes[out])
    if out.all() or not out.any():
        raise UserError(f"data.unseen_share={share:g} keeps {'all' if out.all() else 'no'} passages out of training")
    notice(f"{source.name}: {out.sum():,} of {len(out):,} passages are kept out of all that is learned.")
    found = np.flatnonzero(~out), np.unique(id_hashes[out]), np.unique(text_hashes[out])
    for part, values in zip(_PARTS, found, strict=True):
        np.save(folder / f"{part}.npy", values)


def _hashes_of_lines(file: Path) -> np.ndarray:
    lines = TsvFile(file, names=["id"])
    return np.concatenate([
        hash_rows(pc.utf8_trim_whitespace(table["id"])) for table, _ in lines.read(lines.schema, BadRows(1))
    ])  # fmt: skip


class LearnedPart(PartOfSource):
    """A source without some passages, without the queries that these alone answer, and without triplets with them.

    ``rows`` (n,) int64 are those of the other passages; ``ids`` and ``texts`` ascending uint64 hashes of those that are
    not there.
    """

    def __init__(self, source: Source, rows: np.ndarray, ids: np.ndarray, texts: np.ndarray) -> None:
        super().__init__(source, rows)
        self._ids, self._texts = ids, texts
        self._judged: dict[str, tuple[pa.Table, pa.Table]] = {}

    def queries(self, split: str) -> pa.Table:
        return self._of(split)[0]

    def qrels(self, split: str) -> pa.Table:
        return self._of(split)[1]

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        return self._without(self.source.triplets(), ("positive_id", "negative_id"), self._ids)

    def text_triplets(self) -> Iterator[pa.RecordBatch] | None:
        return self._without(self.source.text_triplets(), ("positive", "negative"), self._texts)

    def fingerprint(self) -> str:
        return key_of("learned", super().fingerprint())

    def _of(self, split: str) -> tuple[pa.Table, pa.Table]:
        """The queries that are left, and their judgements."""
        if split not in self._judged:
            queries, qrels = self.source.queries(split), self.source.qrels(split)
            relevant = pc.greater_equal(qrels["grade"], self.relevant_grade(split))
            there = pa.array(~np.isin(hash_rows(qrels["document_id"]), self._ids))
            answered, before = (
                pc.unique(qrels.filter(mask)["query_id"]) for mask in (pc.and_(relevant, there), relevant)
            )
            lost = before.filter(pc.invert(pc.is_in(before, value_set=answered)))
            stays = [pc.invert(pc.is_in(ids, value_set=lost)) for ids in (queries["id"], qrels["query_id"])]
            self._judged[split] = queries.filter(stays[0]), qrels.filter(pc.and_(stays[1], there))
        return self._judged[split]

    @staticmethod
    def _without(
        batches: Iterator[pa.RecordBatch] | None, columns: tuple[str, str], hashes: np.ndarray
    ) -> Iterator[pa.RecordBatch] | None:
        if batches is None:
            return None

        def stays(batch: pa.RecordBatch) -> np.ndarray:
            return ~np.logical_or.reduce([np.isin(hash_rows(batch[name]), hashes) for name in columns])

        return (batch.filter(pa.array(stays(batch))) for batch in batches)
