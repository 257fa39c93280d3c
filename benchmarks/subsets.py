"""Parts of collections that experiments are made on: written where runs are, from a seed."""

from __future__ import annotations

import json
import random
from pathlib import Path

from two_tower.cache import cache_folder, key_of
from two_tower.data.base import Source
from two_tower.data.beir import Beir
from two_tower.data.pydocs import PyDocs


def answers_of(folder: Path, split: str) -> Path:
    """A file with the ids of the passages that are relevant to the queries of a split."""
    source = Beir(folder)
    path = cache_folder() / "experiments" / f"{key_of(source.fingerprint(), split)}.txt"
    ids = {row["document_id"] for row in source.qrels(split).to_pylist() if row["grade"] > 0}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(sorted(ids)) + "\n", encoding="utf-8")
    return path


def write_subset(name: str, folder: Path | None, passages: int, queries: int, training: int) -> Path:
    """A BEIR folder of some passages with that many queries of ``dev`` and of ``train`` among them.

    Of ``data=pydocs`` without a ``folder``.
    """
    source: Source = PyDocs() if folder is None else Beir(folder)
    path = cache_folder() / "experiments" / f"{name}-{key_of(source.fingerprint(), passages, queries, training)}"
    if (path / "qrels" / "dev.tsv").exists():
        return path
    rng = random.Random(0)
    relevant: dict[str, dict[str, list[str]]] = {"train": {}, "dev": {}}
    chosen, kept = {}, set[str]()
    for split, count in (("train", training), ("dev", queries)):
        for row in source.qrels(split).to_pylist():
            if row["grade"] > 0:
                relevant[split].setdefault(row["query_id"], []).append(row["document_id"])
        chosen[split] = rng.sample(sorted(relevant[split]), min(count, len(relevant[split])))
        kept |= {document for query in chosen[split] for document in relevant[split][query]}
    rows = {row["id"]: row for batch in source.corpus() for row in batch.to_pylist()}
    others = sorted(rows.keys() - kept)
    kept |= set(rng.sample(others, max(0, min(len(others), passages - len(kept)))))
    (path / "qrels").mkdir(parents=True, exist_ok=True)
    _write_rows(path / "corpus.jsonl", [{"_id": i, **row} for i, row in rows.items() if i in kept])
    texts = {s: dict(zip(*(source.queries(s)[c].to_pylist() for c in ("id", "text")), strict=True)) for s in chosen}
    _write_rows(path / "queries.jsonl", [{"_id": q, "text": texts[s][q]} for s, ids in chosen.items() for q in ids])
    for split, ids in chosen.items():
        write_qrels(path, split, [(q, d, 1) for q in ids for d in relevant[split][q] if d in kept])
    return path


def write_qrels(folder: Path, split: str, judged: list[tuple[str, str, int]]) -> None:
    """The judgements of a split in a BEIR folder: query, passage, grade."""
    lines = "".join(f"{query}\t{document}\t{grade}\n" for query, document, grade in judged)
    (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}", encoding="utf-8")


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
