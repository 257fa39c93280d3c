"""The experiments of docs/experiments.md: what is run, and what of it the tables show.

``python -m benchmarks.experiments run NAME FOLDER…`` trains and evaluates what is not stored yet, on BEIR folders that
are known by their names; ``fill`` writes the stored figures into the documents.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.costs import costs
from benchmarks.order import order_matters
from benchmarks.peers import figures
from benchmarks.renewal import renewal
from benchmarks.subsets import answers_of, write_subset
from benchmarks.tables import ROOT, Column, Experiment, Folders, Found, Row, found_of, store, stored
from two_tower import new_words
from two_tower.config.compose import composed
from two_tower.console import say
from two_tower.data.base import LOADER_KEYS, Source
from two_tower.evaluation import evaluate_run
from two_tower.loading import make_source

METRICS = ("mrr@10", "recall@100", "ndcg@10")


def _data(name: str, *more: str) -> Callable[[Folders], list[str]]:
    return lambda folders: ["data=beir", f"data.path={folders[name]}", *more]


def _without_answers(name: str, split: str) -> Callable[[Folders], list[str]]:
    def overrides(folders: Folders) -> list[str]:
        return [*_data(name)(folders), f"data.unseen_ids={answers_of(folders[name], split)}"]

    return overrides


def _subset(name: str) -> Callable[[Folders], list[str]]:
    def overrides(folders: Folders) -> list[str]:
        return ["data=beir", f"data.path={write_subset(name, folders.get(name), 2_700, queries=50, training=100)}"]

    return overrides


_AVERAGE = "experiment=best_average"
_DISTIL, _NO_LEXICAL = "experiment=distil_average", "tower.lexical_dims=0"
_FREE = ("embedding.pull=null", _NO_LEXICAL, "optimizer.lr=0.01", "optimizer.embedding_lr_scale=1")
_UNTRAINED = (_NO_LEXICAL, "optimizer.lr=1e-9", "trainer.max_steps=1", "trainer.max_epochs=-1")
_BEST = "unseen-distil_average-seen"  # runs that others are made of
_LONG = "trainer.max_epochs=16"
_RECURRENT = {
    "average": Row("`distil_average`, 8 epochs", (_DISTIL,)),
    "average_long": Row("… 16 epochs", (_DISTIL, _LONG)),
    "gru": Row("`distil_gru`, 8 epochs", ("experiment=distil_gru",)),
    "gru_long": Row("… 16 epochs", ("experiment=distil_gru", _LONG)),
}
MSMARCO = "msmarco-small"
_TEST = (
    Column("seen", "seen", "dense/mrr@10"), Column("Recall@100", "seen", "dense/recall@100"),
    Column("hybrid", "seen", "hybrid/mrr@10"), Column("**not seen**", "unseen", "dense/mrr@10"),
    Column("Recall@100", "unseen", "dense/recall@100"), Column("hybrid", "unseen", "hybrid/mrr@10"),
    Column("among new", "unseen", "dense_new/mrr@10"), Column("seconds", "seen", "seconds"),
)  # fmt: skip

EXPERIMENTS = {
    "unseen": Experiment(
        {
            "start": Row("start: the teacher's word vectors, idf weights", (_DISTIL, *_UNTRAINED)),
            "free": Row("a free vector for each word", (_DISTIL, *_FREE)),
            "map": Row("a map that all words share, and a part of each that is pulled to 0", (_DISTIL, _NO_LEXICAL)),
            "distil_average": Row("**`distil_average`**: the same and 256 dimensions for exact words", (_DISTIL,)),
            "model2vec": Row("model2vec's distillation of the teacher", peer="model2vec"),
            "static": Row("Sentence Transformers' static model, trained on the teacher's vectors", peer="static"),
            "teacher": Row("*the teacher itself*", peer="teacher"),
        },
        {"seen": _data(MSMARCO), "unseen": _without_answers(MSMARCO, "test")},
        _TEST,
    ),
    "elsewhere": Experiment(
        {
            "learned": Row("token weights as learned", adapted=0.0, runs=_BEST),
            "half": Row("**half way to the idf of the collection**", runs=_BEST),
            "idf": Row("with the idf of the collection", adapted=1.0, runs=_BEST),
        },
        {"medquad": _data("medquad"), "pydocs": lambda _: ["data=pydocs"]},
        [Column(f"{name}{what}", name, f"{key}/mrr@10")
         for name in ("medquad", "pydocs") for what, key in (("", "dense"), (", hybrid", "hybrid"))],
        split="dev",
    ),
    "costs": Experiment(
        {"map": Row("without dimensions for exact words", runs="unseen-{row}-seen"),
         "distil_average": Row("with 256 of them", runs="unseen-{row}-seen")},
        {MSMARCO: _data(MSMARCO)},
        [Column("passages/s", MSMARCO, "cost/passages_per_second"), Column("bytes a passage", MSMARCO, "cost/bytes"),
         Column("ms a query", MSMARCO, "cost/dense_ms"), Column("hybrid: bytes", MSMARCO, "cost/hybrid_bytes"),
         Column("hybrid: ms", MSMARCO, "cost/hybrid_ms")],
        seeds=(0,),
        measure=costs,
    ),
    "recurrent": Experiment(
        _RECURRENT,
        {"unseen": _without_answers(MSMARCO, "test")},
        [Column("seen (`dev`)", "unseen", "val/mrr@10"), Column("**not seen**", "unseen", "dense/mrr@10"),
         Column("Recall@100", "unseen", "dense/recall@100"), Column("hybrid", "unseen", "hybrid/mrr@10"),
         Column("among new", "unseen", "dense_new/mrr@10"), Column("seconds", "unseen", "seconds")],
        seeds=(0,),
    ),
    "order": Experiment(
        {**{name: row._replace(runs="recurrent-{row}-{variant}") for name, row in _RECURRENT.items()},
         "teacher": Row("*the teacher itself*", peer="teacher")},
        {"unseen": lambda folders: ["data=beir", f"data.path={order_matters(folders[MSMARCO], 'test')}"]},
        [Column("MRR@10", "unseen", "dense/mrr@10"), Column("Recall@100", "unseen", "dense/recall@100"),
         Column("hybrid", "unseen", "hybrid/mrr@10")],
        split="order",
        seeds=(0,),
    ),
    "update": Experiment(
        {
            "before": Row("the run before", runs="unseen-distil_average-unseen"),
            "update": Row("**`two-tower update`**", runs="unseen-distil_average-unseen", updates=True),
            "scratch": Row("from scratch", runs=_BEST),
        },
        {"all": _data(MSMARCO)},
        [Column("old passages (`dev`)", "all", "val/mrr@10"), Column("new passages (`test`)", "all", "dense/mrr@10"),
         Column("Recall@100", "all", "dense/recall@100"), Column("hybrid", "all", "hybrid/mrr@10"),
         Column("seconds", "all", "seconds")],
    ),
    "renewal": Experiment(
        {"gru": Row("`distil_gru`", runs="recurrent-{row}-unseen"),
         "average": Row("`distil_average`", runs="recurrent-{row}-unseen")},
        {"changed": _data(MSMARCO)},
        [Column("from scratch, s", "changed", "cost/scratch_s"),
         Column("1 % added, 1 % changed, 1 % deleted, s", "changed", "cost/changed_s"),
         Column("nothing changed, s", "changed", "cost/same_s")],
        seeds=(0,),
        measure=renewal,
    ),
    "small": Experiment(
        {
            "distil_average": Row("`distil_average`", (_DISTIL,)),
            "map": Row("… without the dimensions for exact words", (_DISTIL, _NO_LEXICAL)),
            "teacher": Row("*the teacher itself*", peer="teacher"),
        },
        {"medquad": _subset("medquad"), "pydocs": _subset("pydocs")},
        [Column(f"{name}{what}", name, f"{key}/mrr@10")
         for name in ("medquad", "pydocs") for what, key in (("", "dense"), (", hybrid", "hybrid"))],
        split="dev",
    ),
    "sample": Experiment(
        {str(n): Row(f"{n:,}", (_DISTIL, f"teacher.sample={n}")) for n in (2_500, 5_000, 10_000, 20_000)}
        | {"all": Row("all", (_DISTIL,))},
        {"seen": _data(MSMARCO), "unseen": _without_answers(MSMARCO, "dev")},
        [Column("seen", "seen", "dense/mrr@10"), Column("not seen", "unseen", "dense/mrr@10")],
        split="dev",
        seeds=(0,),
    ),
    "best": Experiment(
        {
            "best_average": Row("`best_average`", (_AVERAGE,)),
            "map": Row("… without the dimensions for exact words", (_AVERAGE, _NO_LEXICAL, "optimizer.lr=0.0005")),
            "bm25": Row("… `negatives=bm25`", (_AVERAGE, "negatives=bm25")),
            "ann": Row("… `negatives=ann`", (_AVERAGE, "negatives=ann")),
            "triplet": Row("… `loss=triplet`", (_AVERAGE, "loss=triplet")),
            "frozen": Row("… `embedding.freeze=true`", (_AVERAGE, "embedding.freeze=true")),
            "best_gru": Row("`best_gru`", ("experiment=best_gru",)),
            "best_lstm": Row("`best_lstm`", ("experiment=best_lstm",)),
        },
        {"all": _data(MSMARCO)},
        [Column("untrained", "all", "untrained/mrr@10"), Column("**MRR@10 `dev`**", "all", "val/mrr@10"),
         Column("Recall@100 `dev`", "all", "val/recall@100"), Column("MRR@10 `test`", "all", "dense/mrr@10"),
         Column("Recall@100 `test`", "all", "dense/recall@100"), Column("hybrid", "all", "hybrid/mrr@10"),
         Column("seconds", "all", "seconds")],
    ),
    "judged": Experiment(
        {"average": Row("average"), **{t: Row(t, (f"tower={t}",)) for t in ("gru", "lstm", "rnn")}},
        {name: _data(name) for name in (MSMARCO, "msmarco-v11")} | {"pydocs": lambda _: ["data=pydocs"]},
        [Column(f"{name}, {what}", name, f"{key}/mrr@10") for name in (MSMARCO, "msmarco-v11", "pydocs")
         for what, key in (("before", "untrained"), ("best", "dense"))],
        split="dev",
    ),
}  # fmt: skip


def run(name: str, folders: Folders, work: Path) -> None:
    """Train and evaluate what of an experiment is not stored yet."""
    experiment = EXPERIMENTS[name]
    for seed in experiment.seeds:
        for row_name, row in experiment.rows.items():
            for variant, data in experiment.variants.items():
                if found_of(stored(), name, row_name, variant, None if row.peer else seed):
                    continue
                if row.peer:
                    figured = figures(row.peer, _source(data(folders)), experiment.split, _left_out(data(folders)))
                    _keep(name, row_name, variant, None, *figured)
                    continue
                folder = _made(name, row_name, variant, seed, data(folders), work)
                own = json.loads((folder / "results.json").read_text(encoding="utf-8"))
                new_words.ADAPTED = row.adapted
                if experiment.measure:
                    found = experiment.measure(folder, experiment.split)
                else:
                    config = _config(data(folders)) if row.runs and not row.updates else None
                    found = evaluate_run(folder, config, experiment.split, hybrid=True)
                found |= {key: value for key, value in own.items() if key.startswith(("untrained/", "val/"))}
                _keep(name, row_name, variant, seed, own["seconds"], found)


def _made(name: str, row: str, variant: str, seed: int, data: Sequence[str], work: Path) -> Path:
    """The folder of a row's run, trained if need be."""
    _, overrides, _, _, runs, updates = EXPERIMENTS[name].rows[row]
    own, other = work / f"{name}-{row}-{variant}-{seed}", work / f"{runs.format(row=row, variant=variant)}-{seed}"
    if runs and not updates:
        return other
    if not (own / "results.json").exists():
        if updates:
            _command(["-m", "two_tower", "update", str(other), str(own), *data])
        else:
            _train([*overrides, *data, f"seed={seed}", f"run_dir={own}"])
    return own


def _config(data: Sequence[str]) -> Mapping[str, Any]:
    """Of a source, with all of its passages."""
    kept = [each for each in data if not each.startswith("data.unseen")]
    return composed(kept, {"data": LOADER_KEYS})["data"]


def _source(data: Sequence[str]) -> Source:
    return make_source(_config(data))


def _left_out(data: Sequence[str]) -> set[str]:
    """The ids of passages that are left out of training."""
    files = [Path(each.partition("=")[2]) for each in data if each.startswith("data.unseen_ids=")]
    return {name for file in files for name in file.read_text(encoding="utf-8").splitlines()}


def _train(overrides: Sequence[str]) -> None:
    _command([str(ROOT / "train.py"), *overrides, "callbacks.samples.console=never", "console=quiet"])


def _command(arguments: Sequence[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def _keep(name: str, row: str, variant: str, seed: int | None, seconds: float, found: Found) -> None:
    shown = [k for k in found if any(f"/{m}" in k for m in METRICS) and not k.endswith(("/low", "/high"))]
    kept = {key: round(found[key], 4) for key in shown}
    kept |= {k: v for k, v in found.items() if k in ("queries", "documents", "fusion/weight") or k.startswith("cost/")}
    store(name, row, variant, seed, seconds, kept)
    say(f"{name}: {row}, {variant}, seed {seed}: {', '.join(f'{key} {value}' for key, value in [*kept.items()][:5])}")


def main(action: str, name: str = "", *folders: str) -> None:
    """The command."""
    from benchmarks.fill import fill

    if action == "run":
        paths = {Path(folder).name: Path(folder).resolve() for folder in folders}
        run(name, paths, Path("runs") / "experiments")
    fill()


if __name__ == "__main__":
    main(*sys.argv[1:])
