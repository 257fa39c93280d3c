"""A text file → vectors on disk: `embed_corpus` on 1,000,000 passages, and Sentence Transformers' `StaticEmbedding`.

Ours reads JSON lines, checks each row, encodes with an average tower of 256 dimensions and writes vectors, passages
and checksums in parts; the peer reads the same form with `json`, encodes in batches and writes one array. It has
fewer passages, since its rate does not depend on their number. How much memory ours takes besides mapped files is said.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.encode_average import TOLERANCE, static_embedding
from benchmarks.inputs import passages, tokenizer
from benchmarks.measure import Rates, Row, compare, require_equal, watched_memory
from benchmarks.tokenise import library_tokenizer
from benchmarks.vectors import random_tower
from two_tower.console import say
from two_tower.data.passages import Passages
from two_tower.encode import Encoder, embed_corpus
from two_tower.tokenizer.base import Tokenizer

NEEDS = ("sentence_transformers",)
PASSAGES, PEERS, BATCH = 1_000_000, 20_000, 16_384
PEER = f"StaticEmbedding, batch {BATCH:,}"


def _write(path: Path, count: int, quick: bool) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(passages(count, quick)):
            file.write(json.dumps({"_id": f"d{number}", "text": text}, ensure_ascii=False) + "\n")
    return path


def _embed(encoder: Encoder, file: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    embed_corpus(encoder, Passages(str(file)), folder, 65_536)


def _memory(words: Path, file: Path, folder: Path) -> float:
    """Gigabytes of anonymous memory that embedding takes at most; for a process that does nothing else."""
    encoder = random_tower(Tokenizer.load(words))
    with watched_memory() as seen:
        _embed(encoder, file, folder)
    return max(seen) / 1e9


def _peer(encode: Callable[[list[str]], np.ndarray], file: Path, out: Path) -> None:
    with file.open(encoding="utf-8") as lines:
        np.save(out, encode([json.loads(line)["text"] for line in lines]))


def run(quick: bool = False) -> list[Row]:
    """The row ``embed_corpus``."""
    count, fewer = (2000, 200) if quick else (PASSAGES, PEERS)
    encoder = random_tower(tokenizer(quick))
    rates: Rates = {"ours": [], PEER: []}
    alone = partial(ProcessPoolExecutor, 1, get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder:
        store, array, words = Path(folder, "store"), Path(folder, "peer.npy"), Path(folder, "tokenizer.json")
        encoder.tokenizer.save(words)
        with alone() as process:
            many, few = (process.submit(_write, Path(folder, f"{n}.jsonl"), n, quick).result() for n in (count, fewer))
        with alone() as process:
            memory = process.submit(_memory, words, many, store).result()
        say(f"embed_corpus: {count:,} passages, {memory:.2f} GB of memory at most", style="dim")
        table = encoder.model.document_tower.words.vectors.detach().numpy()
        peer = static_embedding(library_tokenizer(encoder.tokenizer), table.copy(), BATCH)
        _peer(peer, few, array)
        require_equal("saved vectors", np.load(store / "vectors-00000.npy")[:fewer], np.load(array), TOLERANCE)
        for _ in range(1 if quick else 3):
            for name, work, call in (
                ("ours", count, lambda: _embed(encoder, many, store)),
                (PEER, fewer, lambda: _peer(peer, few, array)),
            ):
                start = time.perf_counter()
                call()
                rates[name].append(work / (time.perf_counter() - start))
    say(f"embed_corpus: {statistics.median(rates['ours']):,.0f} passages/s from file to file", style="dim")
    return [compare("embed_corpus", "passages/s", rates, "ours", [PEER])]
