"""What searching with a run costs, alone and fused with BM25."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.tables import ROOT
from two_tower.data.base import full_text
from two_tower.encode import Encoder
from two_tower.loading import own_source
from two_tower.run import Run
from two_tower.search import MODES, Searcher

QUERIES, ROUNDS = 500, 3


def costs(path: Path, split: str) -> dict[str, float]:
    """Passages encoded a second; bytes of index a passage and milliseconds a query, alone and as a hybrid.

    A flat index; queries come one at a time and are answered as `Searcher.search` does, with passages and marks.
    """
    run = Run.existing(path)
    source, encoder = own_source(run), Encoder.load(run)
    texts = [text for batch in source.corpus() for text in full_text(batch).to_pylist()]
    queries = source.queries(split)["text"].to_pylist()[:QUERIES]
    encoder.documents(texts)
    rate = len(texts) / statistics.median(_seconds(partial(encoder.documents, texts)) for _ in range(ROUNDS))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "embed.py"), f"run={path}", f"output={folder}/index", "index=flat"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        searcher = Searcher.load(path, f"{folder}/index")
        searcher.search(queries[:1], mode="hybrid")
        times = {m: statistics.median(_seconds(partial(searcher.search, [q], mode=m)) for q in queries) for m in MODES}
        words = Path(folder, "index", "bm25.npz").stat().st_size / len(texts)
    vectors = 4 * encoder.model.document_tower.dim
    return {
        "cost/passages_per_second": rate, "cost/bytes": vectors, "cost/hybrid_bytes": vectors + words,
        **{f"cost/{mode}_ms": 1000 * seconds for mode, seconds in times.items()},
    }  # fmt: skip


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
