"""Failures to inject into small runs, with what the doctor must call them; and how such runs are made."""

import json
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import yaml
from conftest import ROOT, composed
from doctor import faulty
from doctor.corpus import Text, texts
from rows import write_rows

from train import train

# A small but real run: 41 steps of 32 pairs of the frozen collection; the doctor looks at steps 2, 20 and 40.
SMALL = [
    "data=beir", "data.path={mini}", "tokenizer=code", "data.batch_size=32", "trainer.max_steps=41",
    "trainer.max_epochs=2", "callbacks.samples.console=never", "validation.depth=10",
]  # fmt: skip
TOWERS = {
    "average": ["tower=average", "tower.dim=64"],
    "gru": ["tower=gru", "tower.dim=48", "tokenizer.document_tokens=96"],
}


def replaced(group: str, choice: str, target: str) -> list[str]:
    """The overrides that put somebody else's class in the place of a choice, without the choice's own keys."""
    keys = yaml.safe_load((ROOT / "conf" / group / f"{choice}.yaml").read_text(encoding="utf-8"))
    own = [f"~{group}.{key}" for key in keys if key not in ("defaults", "_target_", "dim")]
    return [f"{group}={choice}", f"{group}._target_={target}", *own]


class Case(NamedTuple):
    """A failure."""

    id: str  # what the doctor must call it first
    step: int  # by which it must be seen; 0 is before the first
    overrides: list[str]  # what brings it about; {name} is a folder or file that make_data wrote
    towers: tuple[str, ...] = ("average", "gru")  # the kinds of tower it applies to; the tests take the first
    heals: bool = True  # whether the override that the doctor suggests brings a healthy run

    def all_overrides(self, tower: str) -> list[str]:
        """Those of the run on a kind of tower."""
        own_tower = any(override.startswith("tower._target_") for override in self.overrides)
        return [*SMALL, *(TOWERS["gru"][1:] if own_tower else TOWERS[tower]), *self.overrides]


def own_tower(name: str) -> list[str]:
    """A tower of `doctor.faulty`."""
    return replaced("tower", "average", f"doctor.faulty.{name}")


SWAPPED = ["data=pairs", "data.path={pairs}", "data.query_column=passage", "data.positive_column=query"]
BY_HEART = ["data.path={few}", "data.batch_size=8", "trainer.max_steps=-1", "tokenizer.min_frequency=1"]
PRETRAINED = ["embedding=pretrained", "embedding.dim=null"]
KEYWORDS = ["data.path={keywords}", "loss=triplet", "negatives=random"]
FAILURES = {
    "vectors in one direction": Case("collapsed", 20, [*PRETRAINED, "embedding.path={one_direction}"]),
    "margin out of reach": Case("stuck_at_margin", 2, ["loss=triplet", "loss.margin=20"], ("gru", "average")),
    "temperature of 20": Case("stuck_at_chance", 2, ["loss.temperature=20"]),
    "random negatives": Case("easy_negatives", 40, [*KEYWORDS, "loss.margin=0.1"], ("average",)),
    "random negatives, small margin": Case(
        "easy_negatives", 40, [*KEYWORDS, *PRETRAINED, "embedding.path={vectors}", "loss.margin=0.05"], ("gru",)
    ),
    "relevant passages not masked": Case(
        "false_negatives", 20, ["data.path={topics}", "negatives.mask_known_positives=false"]
    ),
    "hardest negatives of an untrained GRU": Case(
        "hardest_negative_collapse", 20, ["loss=triplet", "loss.select=hardest"], ("gru",)
    ),
    "a millionth as learning rate": Case("learning_rate_too_low", 20, ["optimizer.lr=1e-6"]),
    "1 as learning rate": Case("learning_rate_too_high", 40, ["optimizer.lr=1"]),
    "diverged": Case("learning_rate_too_high", 20, ["optimizer.lr=1e30", "similarity=dot"]),
    "random vectors frozen": Case("no_gradient", 0, ["embedding.freeze=true"]),
    "words cut off": Case("no_gradient", 20, own_tower("Detached"), ("average",), heals=False),
    "states cut off": Case("no_gradient", 20, own_tower("DetachedGru"), ("gru",), heals=False),
    "rows of vectors shuffled": Case("embedding_mismatch", 0, [*PRETRAINED, "embedding.path={shuffled}"]),
    "vectors of another language": Case("embedding_mismatch", 0, [*PRETRAINED, "embedding.path={foreign}"]),
    "200 words": Case("unknown_words", 0, ["tokenizer.vocabulary_size=200"]),
    "passages cut to 8 words": Case("truncated", 0, ["tokenizer.document_tokens=8"]),
    "judgements slipped a row": Case("misaligned_pairs", 0, ["data.path={slipped}"], heals=False),
    "training pairs shuffled": Case("misaligned_pairs", 0, ["data.path={mixed_up}"], heals=False),
    "columns swapped": Case("misaligned_pairs", 0, [*SWAPPED, "tokenizer=code"]),
    "padding averaged in": Case("batch_dependent", 0, own_tower("AveragesPadding"), ("average",), heals=False),
    "padding read last": Case("batch_dependent", 0, own_tower("ReadsLastColumn"), ("gru",), heals=False),
    "trained on the validation split": Case("leakage", 0, ["data.train_split=dev"]),
    "100 pairs by heart": Case("overfitting", 50, [*BY_HEART, "optimizer.embedding_lr_scale=30"], ("average",)),
    "100 pairs by heart, GRU": Case(
        "overfitting", 50,
        [*BY_HEART, *PRETRAINED, "embedding.path={vectors}", "optimizer.lr=0.01", "trainer.max_epochs=3"], ("gru",),
    ),
    "slow negatives": Case(
        "data_bound", 40, ["negatives._target_=doctor.faulty.SlowNegatives", "~negatives.mask_known_positives"]
    ),
}  # fmt: skip


def without(overrides: list[str], remedy: list[str]) -> list[str]:
    """The overrides that a new choice for their group leaves: the keys of the old choice are not the new one's."""
    chosen = {override.partition("=")[0] for override in remedy if "." not in override.partition("=")[0]}
    return [o for o in overrides if o.lstrip("~").partition("=")[0].partition(".")[0] not in chosen]


def configured(overrides: list[str], paths: dict[str, str]) -> dict[str, Any]:
    """The configuration of a run with overrides that may name ``paths``."""
    return composed(*(o.format(**paths) if "{" in o else o for o in overrides))


def doctor_of(overrides: list[str], paths: dict[str, str], folder: Path) -> dict[str, Any]:
    """``doctor.json`` of a training into ``folder``; whether it waits for its data depends on `SlowNegatives` only."""
    with patch("two_tower.doctor.measure_step.time", faulty.CLOCK):
        train({**configured(overrides, paths), "run_dir": str(folder)})
    return json.loads((folder / "doctor.json").read_text(encoding="utf-8"))


def make_data(folder: Path) -> dict[str, str]:
    """Write what the cases name; returns name → path."""
    pairs, rng = texts(), np.random.default_rng(0)
    # Every ninth word of a passage as its query: random passages have hardly any of them.
    keywords = [pair._replace(query=" ".join(pair.passage.split()[::9])) for pair in pairs]
    count = len(pairs)
    one_to_one = [(i, i) for i in range(count)]
    train_rows = [i for i in range(count) if i % 5]
    shuffled = dict(zip(train_rows, rng.permutation(train_rows).tolist(), strict=True))
    groups = [(i, j) for i in train_rows for j in range(i - i % 8, i - i % 8 + 8)]
    paths = {
        "mini": _beir(folder / "mini", pairs, one_to_one),
        "few": _beir(folder / "few", pairs, one_to_one, most=100),
        "slipped": _beir(folder / "slipped", pairs, [(i, i + 1) for i in range(count - 1)]),
        "mixed_up": _beir(folder / "mixed_up", pairs, [(i, shuffled.get(i, i)) for i in range(count)]),
        "topics": _beir(folder / "topics", pairs, [*groups, *((i, i) for i in range(0, count, 5))]),
        "keywords": _beir(folder / "keywords", keywords, one_to_one),
        "pairs": write_rows(folder / "pairs.jsonl", [pair._asdict() for pair in pairs]),
    }
    return {name: str(path) for name, path in (paths | _vectors(folder, pairs)).items()}


def _beir(folder: Path, pairs: list[Text], judged: list[tuple[int, int]], most: int | None = None) -> Path:
    """A folder in the BEIR layout; every fifth query is one of dev."""
    write_rows(folder / "corpus.jsonl", [{"_id": str(i), "text": pair.passage} for i, pair in enumerate(pairs)])
    write_rows(folder / "queries.jsonl", [{"_id": str(i), "text": pair.query} for i, pair in enumerate(pairs)])
    rows = [{"query-id": query, "corpus-id": document, "score": 1} for query, document in judged]
    write_rows(folder / "qrels/train.tsv", [row for row in rows if row["query-id"] % 5][:most])
    write_rows(folder / "qrels/dev.tsv", [row for row in rows if not row["query-id"] % 5])
    return folder


def _vectors(folder: Path, pairs: list[Text]) -> dict[str, Path]:
    """Word vectors that know which words stand together: a random vector of each word, and of each of its passages."""
    rng = np.random.default_rng(0)
    words = [pair.passage.split() for pair in pairs]
    names = sorted({word for text in words for word in text})
    row = {name: i for i, name in enumerate(names)}
    vectors = rng.normal(size=(len(names), 32))
    for text in words:
        vectors[[row[word] for word in {*text}]] += rng.normal(size=32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    plain, alike = ([" ".join(f"{x:.6f}" for x in row) for row in kind] for kind in (vectors, vectors * 0.02 + 8.0))
    files = {
        "vectors": (names, plain),
        "shuffled": (names, [plain[i] for i in rng.permutation(len(names))]),
        "foreign": ([f"{name[::-1]}ovic" if i % 5 else name for i, name in enumerate(names)], plain),
        "one_direction": (names, alike),
    }
    paths = {name: folder / f"{name}.txt" for name in files}
    for name, columns in files.items():
        paths[name].write_text("".join(f"{word} {row}\n" for word, row in zip(*columns, strict=True)), encoding="utf-8")
    return paths
