"""A large file of text triples (query, positive, negative): parsed and tokenised, then read again from the token store.

The file has 3 million lines (2 GB) and is deleted afterwards. Ours runs in a process of its own, whose anonymous
memory is watched: what it maps from files does not count, the system can drop that at any time. The peer, the
`datasets` library, works on the first lines only, before and after.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.inputs import passages, tokenizer
from benchmarks.measure import Rates, Row, compare, watched_memory
from two_tower.data.msmarco_passage import MsMarcoPassage
from two_tower.data.stream.batch import Batches, BatchLoader
from two_tower.data.stream.triplets import text_triplets
from two_tower.negatives.base import NegativeMask
from two_tower.negatives.given import GivenNegatives
from two_tower.tokenizer.base import Tokenizer

NEEDS = ("datasets",)

FILE = "triples.train.small.tsv"
QUERY_WORDS = 6  # as in MS MARCO
BATCH = 512


def _write(folder: Path, count: int, quick: bool) -> int:
    """Write ``count`` triples; returns the bytes written."""
    texts = passages(200 if quick else 60_000, quick)
    queries = [" ".join(text.split()[:QUERY_WORDS]) for text in texts]
    pick = random.Random(1).choices
    with (folder / FILE).open("w", encoding="utf-8") as file:
        for _ in range(0, count, 1000):
            rows = zip(pick(queries, k=1000), pick(texts, k=1000), pick(texts, k=1000), strict=True)
            file.writelines(f"{query}\t{positive}\t{negative}\n" for query, positive, negative in rows)
    return (folder / FILE).stat().st_size


def _ours(folder: Path) -> dict[str, float]:
    """Both passes over the file, as training with ``negatives=given`` makes them."""
    words, source = Tokenizer.load(folder / "tokenizer.json"), MsMarcoPassage(str(folder), triples=FILE)
    words.encode(["compile the kernels"])
    with watched_memory() as memory:
        start = time.perf_counter()
        text_triplets(source, words)
        parsed = time.perf_counter()
        data = text_triplets(source, words)
        opened = time.perf_counter()
        loader = BatchLoader(Batches(data, GivenNegatives(), NegativeMask(data.positives, False), BATCH, seed=0))
        count = sum(len(batch) for batch in loader)
        read = time.perf_counter()
    return {
        "triplets": len(data.examples),
        "first": len(data.examples) / (parsed - start),
        "store": count / (read - opened),
        "open_seconds": opened - parsed,
        "anonymous_bytes": max(memory),
    }


class _Peer:
    """The `datasets` library with the `tokenizers` library: text to token columns, then shuffled batches of these."""

    def __init__(self, folder: Path, count: int) -> None:
        import tokenizers

        self.folder, self.count = folder, count
        self.library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.library.no_truncation()
        with (folder / FILE).open(encoding="utf-8") as file, (folder / "head.tsv").open("w", encoding="utf-8") as head:
            head.writelines(line for line, _ in zip(file, range(count), strict=False))
        self.tokens: Any = None

    def first(self) -> float:
        """Triplets parsed and tokenised a second."""
        import datasets

        def tokenise(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            return {name: [e.ids for e in self.library.encode_batch_fast(texts)] for name, texts in batch.items()}

        names = ["query", "positive", "negative"]
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self.folder) as cache:
            settings: dict[str, Any] = {"delimiter": "\t", "column_names": names, "quoting": 3, "cache_dir": cache}
            rows = datasets.load_dataset("csv", data_files=str(self.folder / "head.tsv"), split="train", **settings)
            tokens = rows.map(tokenise, batched=True, remove_columns=names, load_from_cache_file=False)
            seconds = time.perf_counter() - start
            tokens.save_to_disk(self.folder / "peer")
        self.tokens = datasets.load_from_disk(self.folder / "peer")
        return self.count / seconds

    def store(self) -> float:
        """Triplets of tokens read a second, in random order."""
        start = time.perf_counter()
        batches = self.tokens.with_format("numpy").shuffle(seed=0).iter(batch_size=BATCH)
        count = sum(len(batch["query"]) for batch in batches)
        return count / (time.perf_counter() - start)

    def require_equal(self, ours: Tokenizer) -> None:
        """Check that the peer's tokens are ours."""
        line = (self.folder / "head.tsv").read_text(encoding="utf-8").partition("\n")[0].split("\t")
        theirs = [list(self.tokens[0][name]) for name in ("query", "positive", "negative")]
        if ours.encode(line).to_lists() != theirs:
            raise RuntimeError("the peer's tokens differ from ours")


def run(quick: bool = False) -> list[Row]:
    """The rows ``stream_triples`` (first pass) and ``stream_triples_store`` (from the token store)."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = _write(folder, 2_000 if quick else 3_000_000, quick)
        words = tokenizer(quick)
        words.save(folder / "tokenizer.json")
        peer = _Peer(folder, 1_000 if quick else 20_000)
        firsts, stores = [peer.first()], [peer.store()]
        peer.require_equal(words)
        command = [sys.executable, "-m", "benchmarks.stream_triples", name]
        environment = {**os.environ, "TWO_TOWER_CACHE": str(folder / "cache")}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        ours = json.loads(done.stdout.splitlines()[-1])
        firsts.append(peer.first())
        stores.append(peer.store())
    Console().print(
        f"{ours['triplets']:,} triplets, {size / 1e9:.2f} GB: {ours['anonymous_bytes'] / 1e9:.2f} GB anonymous memory "
        f"at most; opened from the token store in {ours['open_seconds']:.3f} s"
    )
    rates: list[tuple[str, Rates]] = [
        ("stream_triples", {"ours": [ours["first"]] * 2, "datasets and tokenizers": firsts}),
        ("stream_triples_store", {"ours": [ours["store"]] * 2, "datasets": stores}),
    ]
    return [compare(name, "triplets/s", rate, "ours", [list(rate)[1]]) for name, rate in rates]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_ours(Path(sys.argv[1]))) + "\n")
