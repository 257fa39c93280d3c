"""Failures to inject into small runs, with what the doctor must call them; and how such runs are made."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import yaml
from conftest import ROOT, composed
from doctor import faulty
from doctor.corpus import Text, texts

from train import train

# A small but real run: 41 steps of 32 pairs of the frozen collection; the doctor looks at steps 2, 20 and 40.
SMALL = [
    "data=beir", "data.path={mini}", "tokenizer=code", "data.batch_size=32", "trainer.max_steps=41",
    "trainer.max_epochs=2", "callbacks.samples.console=never", "validation.depth=10",
]  # fmt: skip
TOWERS = {"average": ["tower=average", "tower.dim=64"], "gru": ["tower=gru", "tower.dim=48"]}
BOTH = ("average", "gru")


def replaced(group: str, choice: str, target: str) -> list[str]:
    """The overrides that put somebody else's class in the place of a choice, without the choice's own keys."""
    keys = yaml.safe_load((ROOT / "conf" / group / f"{choice}.yaml").read_text(encoding="utf-8"))
    own = [f"~{group}.{key}" for key in keys if key not in ("defaults", "_target_", "dim")]
    return [f"{group}={choice}", f"{group}._target_={target}", *own]


class Case(NamedTuple):
    """A failure."""

    id: str  # what the doctor must call it first
    overrides: list[str]  # what brings it about; {name} is a folder or file that make_data wrote
    towers: tuple[str, ...] = BOTH  # the kinds of tower it applies to
    heals: bool = True  # whether the override that the doctor suggests brings a healthy run

    def all_overrides(self, tower: str) -> list[str]:
        """Those of the run on a kind of tower."""
        own_tower = any(override.startswith("tower._target_") for override in self.overrides)
        return [*SMALL, *(["tower.dim=48"] if own_tower else TOWERS[tower]), *self.overrides]


def own_tower(name: str) -> list[str]:
    """A tower of `doctor.faulty`."""
    return replaced("tower", "average", f"doctor.faulty.{name}")


SWAPPED = ["data=pairs", "data.path={pairs}", "data.query_column=passage", "data.positive_column=query"]
BY_HEART = ["data.path={few}", "data.batch_size=8", "trainer.max_steps=-1", "tokenizer.min_frequency=1"]
PRETRAINED = ["embedding=pretrained", "embedding.dim=null"]
KEYWORDS = ["data.path={keywords}", "loss=triplet", "negatives=random"]
FAILURES = {
    "vectors in one direction": Case("collapsed", [*PRETRAINED, "embedding.path={one_direction}"]),
    "margin out of reach": Case("stuck_at_margin", ["loss=triplet", "loss.margin=20"]),
    "temperature of 20": Case("stuck_at_chance", ["loss.temperature=20"]),
    "random negatives": Case("easy_negatives", [*KEYWORDS, "loss.margin=0.1"], ("average",)),
    "random negatives, small margin": Case(
        "easy_negatives", [*KEYWORDS, *PRETRAINED, "embedding.path={vectors}", "loss.margin=0.05"], ("gru",)
    ),
    "relevant passages not masked": Case(
        "false_negatives", ["data.path={topics}", "negatives.mask_known_positives=false"]
    ),
    "hardest negatives of an untrained GRU": Case(
        "hardest_negative_collapse", ["loss=triplet", "loss.select=hardest"], ("gru",)
    ),
    "a millionth as learning rate": Case("learning_rate_too_low", ["optimizer.lr=1e-6"]),
    "1 as learning rate": Case("learning_rate_too_high", ["optimizer.lr=1"]),
    "diverged": Case("learning_rate_too_high", ["optimizer.lr=1e30", "similarity=dot"]),
    "random vectors frozen": Case("no_gradient", ["embedding.freeze=true"]),
    "words cut off": Case("no_gradient", own_tower("Detached"), ("average",), heals=False),
    "states cut off": Case("no_gradient", own_tower("DetachedGru"), ("gru",), heals=False),
    "rows of vectors shuffled": Case("embedding_mismatch", [*PRETRAINED, "embedding.path={shuffled}"]),
    "vectors of another language": Case("embedding_mismatch", [*PRETRAINED, "embedding.path={foreign}"]),
    "200 words": Case("unknown_words", ["tokenizer.vocabulary_size=200"]),
    "passages cut to 8 words": Case("truncated", ["tokenizer.document_tokens=8"]),
    "judgements slipped a row": Case("misaligned_pairs", ["data.path={slipped}"], heals=False),
    "training pairs shuffled": Case("misaligned_pairs", ["data.path={mixed_up}"], heals=False),
    "columns swapped": Case("misaligned_pairs", [*SWAPPED, "tokenizer=code"]),
    "padding averaged in": Case("batch_dependent", own_tower("AveragesPadding"), ("average",), heals=False),
    "padding read last": Case("batch_dependent", own_tower("ReadsLastColumn"), ("gru",), heals=False),
    "trained on the validation split": Case("leakage", ["data.train_split=dev"]),
    "100 pairs by heart": Case(
        "overfitting", [*BY_HEART, "optimizer.embedding_lr_scale=30"], ("average",)
    ),
    "100 pairs by heart, GRU": Case(
        "overfitting",
        [*BY_HEART, *PRETRAINED, "embedding.path={vectors}", "optimizer.lr=0.01", "trainer.max_epochs=3"],
        ("gru",),
    ),
    "slow negatives": Case(
        "data_bound", ["negatives._target_=doctor.faulty.SlowNegatives", "~negatives.mask_known_positives"]
    ),
}  # fmt: skip


def without(overrides: list[str], remedy: list[str]) -> list[str]:
    """The overrides that a new choice for their group leaves: the keys of the old choice are not the new one's."""
    chosen = {override.partition("=")[0] for override in remedy if "." not in override.partition("=")[0]}
    return [o for o in overrides if o.lstrip("~").partition("=")[0].partition(".")[0] not in chosen]


def doctor_of(overrides: list[str], paths: dict[str, str], folder: Path) -> dict[str, Any]:
    """``doctor.json`` of a training into ``folder``.

    Whether a run waits for its data depends on `faulty.SlowNegatives` only, not on a busy machine.
    """
    with patch("two_tower.doctor.measure_step.time", faulty.CLOCK):
        train({**configured(overrides, paths), "run_dir": str(folder)})
    return json.loads((folder / "doctor.json").read_text(encoding="utf-8"))


def configured(overrides: list[str], paths: dict[str, str]) -> dict[str, Any]:
    """The configuration of a run with overrides that may name ``paths``."""
    return composed(*(o.format(**paths) if "{" in o else o for o in overrides))


def make_data(folder: Path) -> dict[str, str]:
    """Write what the cases name; returns name → path."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs, rng = texts(), np.random.default_rng(0)
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
        "keywords": _beir(folder / "keywords", [_keywords(pair) for pair in pairs], one_to_one),
        "pairs": folder / "pairs.jsonl",
    }
    rows = [json.dumps({"query": t.query, "passage": t.passage}) for t in pairs]
    paths["pairs"].write_text("\n".join(rows) + "\n", encoding="utf-8")
    return {name: str(path) for name, path in (paths | _vectors(folder, pairs)).items()}


def _keywords(text: Text) -> Text:
    """The passage with every ninth of its words as the query: random passages have hardly any of them."""
    return text._replace(query=" ".join(text.passage.split()[::9]))


def _beir(folder: Path, pairs: list[Text], judged: list[tuple[int, int]], most: int | None = None) -> Path:
    """A folder in the BEIR layout; every fifth query is one of dev."""
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", [t.passage for t in pairs]), ("queries", [t.query for t in pairs])):
        lines = [json.dumps({"_id": str(i), "title": "", "text": text}) for i, text in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    parts: dict[str, list[str]] = defaultdict(list)
    for query, document in judged:
        parts["train" if query % 5 else "dev"].append(f"{query}\t{document}\t1")
    for split, lines in parts.items():
        kept = lines[:most] if split == "train" else lines
        text = "\n".join(["query-id\tcorpus-id\tscore", *kept])
        (folder / "qrels" / f"{split}.tsv").write_text(text + "\n", encoding="utf-8")
    return folder


def _vectors(folder: Path, pairs: list[Text]) -> dict[str, Path]:
    """Word vectors that know which words stand together: a random vector of each word, and of each of its passages."""
    rng = np.random.default_rng(0)
    words = [pair.passage.split() for pair in pairs]
    names = sorted({word for text in words for word in text})
    row = {name: i for i, name in enumerate(names)}
    vectors = rng.normal(size=(len(names), 48))
    for text in words:
        vectors[[row[word] for word in {*text}]] += rng.normal(size=48)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    files = {
        "vectors": (names, vectors),
        "shuffled": (names, vectors[rng.permutation(len(names))]),
        "foreign": ([f"{name[::-1]}ovic" if i % 5 else name for i, name in enumerate(names)], vectors),
        "one_direction": (names, vectors * 0.02 + 8.0),
    }
    for name, (known_as, matrix) in files.items():
        lines = [f"{word} {' '.join(f'{x:.6f}' for x in row)}" for word, row in zip(known_as, matrix, strict=True)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {name: folder / f"{name}.txt" for name in files}
