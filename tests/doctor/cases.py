"""Failures to inject, with what the doctor must call them, and runs with which nothing is wrong."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from two_tower.data.base import full_text
from two_tower.data.pydocs import PyDocs

# A small but real run: documentation of Python packages, 50 steps of 32 pairs.
SMALL = [
    "data=beir", "tokenizer=code", "data.batch_size=32", "trainer.max_steps=50", "trainer.max_epochs=2",
    "callbacks.samples.console=never", "validation.depth=10",
]  # fmt: skip
TOWERS = {"average": ["tower=average", "tower.dim=64"], "gru": ["tower=gru", "tower.dim=48"]}

# Fixed before any of them was run. Without triplet + random on pydocs: its negatives really are easy.
PYDOCS, MSMARCO = ["data=pydocs", "data.cache={harvest}"], ["data=beir", "data.path={msmarco}"]
RECURRENT = ["tower.dim=64", "data.batch_size=256", "trainer.max_epochs=3"]
BEST = ["experiment=best_average", *MSMARCO]
HEALTHY = {
    "average, in-batch, pydocs, seed 0": [*PYDOCS, "seed=0"],
    "average, in-batch, pydocs, seed 1": [*PYDOCS, "seed=1"],
    "average, in-batch, pydocs, seed 2": [*PYDOCS, "seed=2"],
    "average, in-batch + BM25 negatives, pydocs": [*PYDOCS, "negatives=bm25"],
    "average, in-batch + random negatives, pydocs": [*PYDOCS, "negatives=random"],
    "average, triplet in batch, pydocs, seed 0": [*PYDOCS, "loss=triplet", "seed=0"],
    "average, triplet in batch, pydocs, seed 1": [*PYDOCS, "loss=triplet", "seed=1"],
    "average, in-batch, GloVe, pydocs": [*PYDOCS, "embedding=glove"],
    "average, in-batch, separate towers, pydocs": [*PYDOCS, "shared_towers=false"],
    "average, in-batch, dot product, pydocs": [*PYDOCS, "similarity=dot"],
    "best_average, MS MARCO sample, seed 0": [*BEST, "seed=0"],
    "best_average, MS MARCO sample, seed 1": [*BEST, "seed=1"],
    "best_average, triplet + BM25 negatives, MS MARCO sample": [*BEST, "loss=triplet", "negatives=bm25"],
    "GRU, in-batch, pydocs, seed 0": [*PYDOCS, "tower=gru", *RECURRENT, "seed=0"],
    "GRU, in-batch, pydocs, seed 1": [*PYDOCS, "tower=gru", *RECURRENT, "seed=1"],
    "GRU, triplet in batch, pydocs": [*PYDOCS, "tower=gru", *RECURRENT, "loss=triplet"],
    "GRU, in-batch, GloVe, MS MARCO sample": [*MSMARCO, "tower=gru", *RECURRENT, "embedding=glove"],
    "LSTM, in-batch, pydocs": [*PYDOCS, "tower=lstm", *RECURRENT],
    "LSTM, in-batch, GloVe, MS MARCO sample": [*MSMARCO, "tower=lstm", *RECURRENT, "embedding=glove"],
    "RNN, in-batch, pydocs": [*PYDOCS, "tower=rnn", *RECURRENT],
}


class Case(NamedTuple):
    """A failure.

    Attributes:
        id: what the doctor must call it first.
        overrides: what brings it about; ``{name}`` is a folder or file that `make_data` wrote.
        towers: the kinds of tower it applies to.
        heals: whether the override that the doctor suggests is to bring a healthy run.
    """

    id: str
    overrides: list[str]
    towers: tuple[str, ...] = ("average", "gru")
    heals: bool = True

    @property
    def own_tower(self) -> bool:
        """Whether the overrides bring a tower of their own."""
        return any(override.startswith("tower._target_") for override in self.overrides)


# A tower of somebody else, without the average tower's own keys.
OWN = ["tower=average", "tower.dim=48"]
OWN += [f"~tower.{key}" for key in ("learn_weights", "tanh", "token_dropout")]
SWAPPED = [
    "data=pairs", "data.path={pairs}", "data.query_column=passage", "data.positive_column=query", "tokenizer=code",
]  # fmt: skip
BY_HEART = ["data.batch_size=8", "trainer.max_steps=-1", "optimizer.embedding_lr_scale=30"]
BY_HEART_GRU = [
    "data.batch_size=4", "trainer.max_steps=-1", "optimizer.lr=0.01", "tower.bidirectional=true",
    "embedding=pretrained", "embedding.dim=null", "embedding.path={vectors}",
]  # fmt: skip
SLOW = ["negatives._target_=doctor.faulty.SlowNegatives", "~negatives.mask_known_positives"]
MINI, FEW = ["data.path={mini}"], ["data.path={few}"]
PRETRAINED = ["embedding=pretrained", "embedding.dim=null"]
KEYWORDS = ["data.path={keywords}", "loss=triplet", "negatives=random"]
FAILURES = {
    "vectors in one direction": Case("collapsed", [*MINI, *PRETRAINED, "embedding.path={one_direction}"]),
    "margin out of reach": Case("stuck_at_margin", [*MINI, "loss=triplet", "loss.margin=20"]),
    "temperature of 20": Case("stuck_at_chance", [*MINI, "loss.temperature=20"]),
    "random negatives": Case("easy_negatives", [*KEYWORDS, "loss.margin=0.25"], ("average",)),
    "random negatives, small margin": Case(
        "easy_negatives", [*KEYWORDS, *PRETRAINED, "embedding.path={vectors}", "loss.margin=0.05"], ("gru",)
    ),
    "relevant passages not masked": Case(
        "false_negatives", ["data.path={topics}", "negatives.mask_known_positives=false"]
    ),
    "hardest negatives of an untrained GRU": Case(
        "hardest_negative_collapse", [*MINI, "loss=triplet", "loss.select=hardest"], ("gru",)
    ),
    "a millionth as learning rate": Case("learning_rate_too_low", [*MINI, "optimizer.lr=1e-6"]),
    "1 as learning rate": Case("learning_rate_too_high", [*MINI, "optimizer.lr=1"]),
    "diverged": Case("learning_rate_too_high", [*MINI, "optimizer.lr=1e30", "similarity=dot"]),
    "random vectors frozen": Case("no_gradient", [*MINI, "embedding.freeze=true"]),
    "words cut off": Case("no_gradient", [*MINI, *OWN, "tower._target_=doctor.faulty.Detached"], ("average",), False),
    "states cut off": Case("no_gradient", [*MINI, *OWN, "tower._target_=doctor.faulty.DetachedGru"], ("gru",), False),
    "rows of vectors shuffled": Case("embedding_mismatch", [*MINI, *PRETRAINED, "embedding.path={shuffled}"]),
    "vectors of another language": Case("embedding_mismatch", [*MINI, *PRETRAINED, "embedding.path={foreign}"]),
    "200 words": Case("unknown_words", [*MINI, "tokenizer.vocabulary_size=200"]),
    "passages cut to 8 words": Case("truncated", [*MINI, "tokenizer.document_tokens=8"]),
    "judgements slipped a row": Case("misaligned_pairs", ["data.path={slipped}"], heals=False),
    "training pairs shuffled": Case("misaligned_pairs", ["data.path={mixed_up}"], heals=False),
    "columns swapped": Case("misaligned_pairs", SWAPPED),
    "padding averaged in": Case(
        "batch_dependent", [*MINI, *OWN, "tower._target_=doctor.faulty.AveragesPadding"], ("average",), False
    ),
    "padding read last": Case(
        "batch_dependent", [*MINI, *OWN, "tower._target_=doctor.faulty.ReadsLastColumn"], ("gru",), False
    ),
    "trained on the validation split": Case("leakage", [*MINI, "data.train_split=dev"]),
    "100 pairs by heart": Case("overfitting", [*FEW, *BY_HEART], ("average",)),
    "100 pairs by heart, GRU": Case("overfitting", [*FEW, *BY_HEART_GRU], ("gru",)),
    "slow negatives": Case("data_bound", [*MINI, *SLOW], ("average",)),
    "slow negatives, GRU": Case("data_bound", [*MINI, *SLOW, "+negatives.seconds=0.1"], ("gru",)),
}


def make_data(folder: Path, cache: str | None = None) -> dict[str, str]:
    """Write what the cases name, from the documentation of the installed packages; returns name → path."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = _texts(cache)
    rng = np.random.default_rng(0)
    one_to_one = [(i, i) for i in range(len(texts))]
    train = [i for i in range(len(texts)) if i % 5]
    shuffled = dict(zip(train, rng.permutation(train).tolist(), strict=True))
    paths = {
        "mini": _beir(folder / "mini", texts, one_to_one),
        "few": _beir(folder / "few", texts, one_to_one, most=100),
        "slipped": _beir(folder / "slipped", texts, [(i, i + 1) for i in range(len(texts) - 1)]),
        "mixed_up": _beir(folder / "mixed_up", texts, [(i, shuffled.get(i, i)) for i in range(len(texts))]),
        "topics": _beir(folder / "topics", texts, [(i, j) for i in train for j in range(i - i % 8, i - i % 8 + 8)]
                        + [(i, i) for i in range(0, len(texts), 5)]),
        "keywords": _beir(folder / "keywords", [_keywords(text) for text in texts], one_to_one),
        "pairs": folder / "pairs.jsonl",
    }  # fmt: skip
    rows = [json.dumps({"query": t.query, "passage": t.passage}) for t in texts]
    paths["pairs"].write_text("\n".join(rows) + "\n", encoding="utf-8")
    return {name: str(path) for name, path in (paths | _vectors(folder, texts)).items()}


class Text(NamedTuple):
    """A query and its passage."""

    id: str
    query: str
    passage: str


def _texts(cache: str | None, count: int = 2000) -> list[Text]:
    """Pairs of pydocs chosen by their ids, so that another version of a package changes a few of them only."""
    source = PyDocs(cache=cache)
    passages = {
        row["id"]: text.as_py() for b in source.corpus() for row, text in zip(b.to_pylist(), full_text(b), strict=True)
    }
    queries = {row["id"]: row["text"] for split in source.splits() for row in source.queries(split).to_pylist()}
    judged = [row for split in source.splits() for row in source.qrels(split).to_pylist()]
    pairs = [Text(r["document_id"], queries[r["query_id"]], passages[r["document_id"]]) for r in judged]
    chosen = sorted(
        {pair.id: pair for pair in pairs}.values(), key=lambda pair: xxhash.xxh3_64_digest(pair.id.encode())
    )
    return sorted(chosen[:count])


def _keywords(text: Text) -> Text:
    """The passage with every ninth of its words as the query: random passages have hardly any of them."""
    return text._replace(query=" ".join(text.passage.split()[::9]))


def _beir(folder: Path, texts: list[Text], judged: list[tuple[int, int]], most: int | None = None) -> Path:
    """A folder in the BEIR layout; every fifth query is one of dev."""
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", [t.passage for t in texts]), ("queries", [t.query for t in texts])):
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


def _vectors(folder: Path, texts: list[Text]) -> dict[str, Path]:
    """Word vectors that know which words stand together: a random vector of each word, and of each of its passages."""
    rng = np.random.default_rng(0)
    words = [text.passage.lower().replace(".", " ").replace("_", " ").split() for text in texts]
    names = sorted({word for text in words for word in text if word.isalpha()})
    row = {name: i for i, name in enumerate(names)}
    vectors = rng.normal(size=(len(names), 48))
    for text in words:
        vectors[[row[word] for word in {*text} if word in row]] += rng.normal(size=48)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    files: dict[str, tuple[list[str], np.ndarray]] = {
        "vectors": (names, vectors),
        "shuffled": (names, vectors[rng.permutation(len(names))]),
        "foreign": ([f"{name[::-1]}ovic" if i % 5 else name for i, name in enumerate(names)], vectors),
        "one_direction": (names, vectors * 0.02 + 3.0),
    }
    made = {}
    for name, (known_as, matrix) in files.items():
        made[name] = folder / f"{name}.txt"
        lines = [
            f"{word} {' '.join(f'{x:.6f}' for x in vector)}" for word, vector in zip(known_as, matrix, strict=True)
        ]
        made[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made
