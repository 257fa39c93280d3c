"""What tests of training share: a loader's settings, a data module, what a run logged."""

import csv
import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from embed import embed
from two_tower.data.base import TEXT_TRIPLETS, Loader, Source
from two_tower.data.beir import Beir
from two_tower.data.stream.module import TripletData
from two_tower.encode import Encoder, embed_corpus
from two_tower.index import make_index
from two_tower.loss.base import Loss, LossInput, LossOutput, diagnostics
from two_tower.negatives.base import Negatives
from two_tower.negatives.in_batch import InBatchNegatives
from two_tower.run import Run
from two_tower.similarity import Similarity
from two_tower.tokenizer.word import WordTokenizer


def loader(**changes: Any) -> Loader:  # noqa: ANN401
    """The default settings for batches of 32."""
    defaults = {"batch_size": 32, "num_workers": 0, "train_split": "train", "validation_split": "dev"}
    return Loader(**{**defaults, "max_examples": 0, "examples": "judged", "exclude_same_id": False, **changes})


def triplet_data(
    source: Source,
    folder: Path,
    negatives: Negatives | None = None,
    in_batch_negatives: bool = True,
    **settings: Any,  # noqa: ANN401
) -> TripletData:
    """The data module of a source, with its tokenizer in ``folder``."""
    folder.mkdir(exist_ok=True)
    strategy = negatives or InBatchNegatives()
    path = folder / "tokenizer.json"
    return TripletData(source, WordTokenizer(), path, strategy, in_batch_negatives, loader(**settings), seed=1)


def embedded(run: Path, **index: object) -> Path:
    """A run with an index of its collection, in shards of 100 rows."""
    flat = {"_target_": "two_tower.index.faiss.FlatIndex", **index}
    embed({"run": str(run), "output": None, "data": None, "index": flat, "shard_rows": 100})
    return run


class TextTriplets(Beir):
    """A BEIR folder whose triplets come as texts, ``rows``."""

    def __init__(self, path: str, rows: Sequence[tuple[str, str, str]]) -> None:
        super().__init__(path)
        self.rows = rows

    def text_triplets(self) -> Iterator[pa.RecordBatch]:
        columns = zip(*self.rows, strict=True)
        yield from pa.table([list(column) for column in columns], TEXT_TRIPLETS).to_batches(13)

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} {self.rows}"


class WithFields(Beir):
    """A BEIR folder whose passages have fields, but for the first hundred, which come in batches without."""

    FIELDS = ('{"URL": "https://example.org/ü", "views": 3, "share": NaN}', '{"link": "javascript:bad()"}', "", "{}")

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        (whole,) = pa.Table.from_batches(self.corpus()).combine_chunks().to_batches()
        yield whole.slice(0, 100)
        rest = whole.slice(100)
        fields = pa.array([self.FIELDS[row % 4] for row in range(len(rest))])
        yield pa.record_batch([*rest.columns, fields], [*rest.schema.names, "fields"])


def indexed(run: Path, source: Source, path: Path) -> Path:
    """An exact index of a source in a folder, made by a run."""
    store = embed_corpus(Encoder.load(Run(run)), source, path, shard_rows=70)
    make_index({"_target_": "two_tower.index.faiss.FlatIndex"}, store, None)
    return path


def margin(row: int) -> float:
    """What a made-up teacher says of a triple."""
    return 4 - row % 7


def with_margins(collection: Path, folder: Path) -> Path:
    """A copy of a collection whose triples have a teacher's scores."""
    shutil.copytree(collection, folder)
    head, *rows = (folder / "triples.tsv").read_text().splitlines()
    lines = [f"{head}\tmargin", *(f"{row}\t{margin(i)}" for i, row in enumerate(rows))]
    (folder / "triples.tsv").write_text("\n".join(lines) + "\n")
    return folder


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def rows_with(column: str, run: Path) -> list[dict[str, str]]:
    """The rows of a run's history in which there is such a figure."""
    with (run / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row[column]]


def history(run: Path) -> list[dict[str, float]]:
    """The logged ``train/`` values of each step, without the prefix."""
    rows = rows_with("train/loss", run)
    return [{k.removeprefix("train/"): float(v) for k, v in row.items() if v} for row in rows]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in history(run)]


def reloaded(state: Any) -> Any:  # noqa: ANN401
    """A state as it comes back from a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def state(run: Path, name: str = "last") -> dict[str, Tensor]:
    """The weights and buffers of a checkpoint."""
    return checkpoint(run, name)["state_dict"]


def of_scores(scores: Tensor, negatives: Tensor | None = None) -> LossInput:
    """A batch with exactly these (B, N) scores; without a mask every document but the own positive is a negative."""
    mask = ~torch.eye(*scores.shape, dtype=torch.bool) if negatives is None else negatives
    return LossInput(scores, torch.eye(scores.shape[1], dtype=scores.dtype), mask, Similarity("dot"))


class UniformityLoss(Loss):
    """Alignment and uniformity (Wang and Isola 2020, arXiv:2005.10242): a loss on vectors alone."""

    def forward(self, batch: LossInput) -> LossOutput:
        positives = batch.documents[: len(batch.queries)]
        alignment = (batch.queries - positives).square().sum(1).mean()
        uniformity = torch.pdist(batch.documents).square().mul(-2).exp().mean().log()
        return LossOutput(alignment + uniformity, diagnostics(batch) | {"uniformity": uniformity.detach()})
