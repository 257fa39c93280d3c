"""The experiments of docs/experiments.md: what is run, what it gave, and the tables made of that.

``python -m benchmarks.experiments run NAME FOLDER…`` trains and evaluates what is not stored yet, on BEIR folders that
are known by their names; ``fill`` writes the stored figures into the documents, between ``<!-- figures NAME -->`` and
``<!-- end -->``, and single ones before ``<!-- NAME | ROW | VARIANT | KEY -->``.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers import figures
from benchmarks.subsets import answers_of, write_subset
from two_tower import new_words
from two_tower.assemble import LOADER_KEYS, make_source
from two_tower.config.compose import composed
from two_tower.console import say
from two_tower.data.base import Source
from two_tower.evaluation import evaluate_run
from two_tower.files import write_text

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures.json"
PAGES = ("docs/experiments.md", "README.md")
METRICS = ("mrr@10", "recall@100", "ndcg@10")
SEEDS = (0, 1, 2)

Folders = Mapping[str, Path]
Stored = dict[str, Any]  # experiment, row, variant, seed, seconds of training, figures


@dataclass(frozen=True)
class Column:
    """A column of a table: what of which variant's figures it shows."""

    head: str
    variant: str
    key: str  # of `evaluate_run`, or "seconds"


class Row(NamedTuple):
    """A row of a table."""

    label: str
    overrides: tuple[str, ...] = ()
    peer: str = ""  # one of `peers` instead of a run of ours; it has no seeds
    adapted: float = new_words.ADAPTED  # how far token weights follow another collection


@dataclass(frozen=True)
class Experiment:
    """Towers that are trained and evaluated alike."""

    rows: Mapping[str, Row]
    variants: Mapping[str, Callable[[Folders], Sequence[str]]]  # name → overrides for the data
    columns: Sequence[Column]
    split: str = "test"  # that is evaluated
    seeds: Sequence[int] = SEEDS
    runs: str = ""  # whose runs are evaluated on the variants' collections, instead of training any


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


_DISTIL, _NO_LEXICAL = "experiment=distil_average", "tower.lexical_dims=0"
_FREE = ("embedding.pull=null", _NO_LEXICAL, "optimizer.lr=0.01", "optimizer.embedding_lr_scale=1")
_UNTRAINED = (_NO_LEXICAL, "optimizer.lr=1e-9", "trainer.max_steps=1", "trainer.max_epochs=-1")
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
            "learned": Row("token weights as learned", adapted=0.0),
            "half": Row("**half way to the idf of the collection**"),
            "idf": Row("with the idf of the collection", adapted=1.0),
        },
        {"medquad": _data("medquad"), "pydocs": lambda _: ["data=pydocs"]},
        [Column(f"{name}{what}", name, f"{key}/mrr@10")
         for name in ("medquad", "pydocs") for what, key in (("", "dense"), (", hybrid", "hybrid"))],
        split="dev",
        runs="unseen-distil_average-seen",
    ),
    "recurrent": Experiment(
        {"distil_gru": Row("`distil_gru`", ("experiment=distil_gru",))},
        {"seen": _data(MSMARCO), "unseen": _without_answers(MSMARCO, "test")},
        _TEST,
        seeds=(0,),
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
        for row, (_, overrides, peer, adapted) in experiment.rows.items():
            for variant, data in experiment.variants.items():
                if _found(stored(), name, row, variant, None if peer else seed):
                    continue
                if peer:
                    _store(name, row, variant, None, *figures(peer, _source(data(folders)), experiment.split))
                    continue
                folder = work / f"{experiment.runs or f'{name}-{row}-{variant}'}-{seed}"
                if not experiment.runs:
                    _train([*overrides, *data(folders), f"seed={seed}", f"run_dir={folder}"])
                own = json.loads((folder / "results.json").read_text(encoding="utf-8"))
                config = composed(data(folders), {"data": LOADER_KEYS})["data"] if experiment.runs else None
                new_words.ADAPTED = adapted
                found = evaluate_run(folder, config, experiment.split, hybrid=True)
                found |= {key: value for key, value in own.items() if key.startswith("untrained/")}
                _store(name, row, variant, seed, own["seconds"], found)


def _source(data: Sequence[str]) -> Source:
    kept = [each for each in data if not each.startswith("data.unseen")]
    return make_source(composed(kept, {"data": LOADER_KEYS})["data"])


def _train(overrides: Sequence[str]) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *overrides, "callbacks.samples.console=never", "console=quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _store(name: str, row: str, variant: str, seed: int | None, seconds: float, found: Mapping[str, Any]) -> None:
    shown = [k for k in found if any(f"/{m}" in k for m in METRICS) and not k.endswith(("/low", "/high"))]
    kept = {key: round(found[key], 4) for key in shown}
    kept |= {key: found[key] for key in ("queries", "documents", "fusion/weight") if key in found}
    result = Stored(experiment=name, row=row, variant=variant, seed=seed, seconds=round(seconds), figures=kept)
    rows = [*stored(), result]
    rows.sort(key=lambda each: (each["experiment"], each["variant"], each["row"], each["seed"] or 0))
    write_text(FIGURES, "[\n" + ",\n".join(json.dumps(each, ensure_ascii=False) for each in rows) + "\n]\n")
    say(f"{name}: {row}, {variant}, seed {seed}: MRR@10 {kept['dense/mrr@10']:.3f}")


def stored() -> list[Stored]:
    """All results so far."""
    return json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else []


def _found(rows: Iterable[Stored], name: str, row: str, variant: str, seed: int | None = None) -> list[Stored]:
    wanted = (name, row, variant)
    same = [each for each in rows if (each["experiment"], each["row"], each["variant"]) == wanted]
    return [each for each in same if seed is None or each["seed"] == seed]


def figure(rows: Iterable[Stored], name: str, row: str, variant: str, key: str) -> str:
    """A figure as a document shows it: the mean over the seeds, with the standard deviation of several."""
    found = _found(rows, name, row, variant)
    values = [each["seconds"] if key == "seconds" else each["figures"].get(key) for each in found]
    values = [value for value in values if value is not None]
    if not values:
        return ""
    if key == "seconds":
        return f"{statistics.mean(values):.0f} s" if max(values) else ""
    if key in ("queries", "documents"):
        return f"{values[0]:,}"
    if "/p_vs_" in key:
        return "< .001" if max(values) < 0.001 else _short(max(values))
    spread = f" ± {_short(statistics.stdev(values))}" if len(values) > 1 else ""
    return _short(statistics.mean(values)) + spread


def _short(value: float) -> str:
    return re.sub(r"^(-?)0", r"\1", f"{value:.3f}")


def table(rows: Sequence[Stored], name: str) -> str:
    """The Markdown table of an experiment; BM25's figures last."""
    experiment = EXPERIMENTS[name]
    lines = [["", *(column.head for column in experiment.columns)]]
    lines.append(["---", *("---:" for _ in experiment.columns)])
    for row, (label, *_) in experiment.rows.items():
        cells = [figure(rows, name, row, column.variant, column.key) for column in experiment.columns]
        if any(cells):
            lines.append([label, *cells])
    last, bm25 = [*experiment.rows][-1], list[str]()
    for column in experiment.columns:
        key = re.sub(r"^(dense|hybrid|untrained)", "bm25", column.key)
        found = next((f for row in (last, *experiment.rows) if (f := figure(rows, name, row, column.variant, key))), "")
        bm25.append(f"*{found.partition(' ')[0]}*" if found and column.key.startswith("dense") else "")
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in [*lines, ["*BM25*", *bm25]])


def filled(page: str, rows: Sequence[Stored]) -> str:
    """A document with the stored figures in it."""

    def whole(match: re.Match[str]) -> str:
        return f"{match[1]}\n{table(rows, match[2])}\n{match[3]}"

    def single(match: re.Match[str]) -> str:
        name, row, variant, key = (part.strip() for part in match[2].split("|"))
        return f"{figure(rows, name, row, variant, key).partition(' ± ')[0] or '?'}{match[1]}"

    page = re.sub(r"(<!-- figures (\w+) -->)\n.*?(<!-- end -->)", whole, page, flags=re.DOTALL)
    return re.sub(r"(?:\?|(?:< )?[-.,\d]+)( ?<!-- (\w+ \|[^>]*?) -->)", single, page)


def fill() -> None:
    """Write the stored figures into the documents."""
    for name in PAGES:
        path = ROOT / name
        write_text(path, filled(path.read_text(encoding="utf-8"), stored()))


def main(action: str, name: str = "", *folders: str) -> None:
    """The command."""
    if action == "run":
        paths = {Path(folder).name: Path(folder).resolve() for folder in folders}
        run(name, paths, Path("runs") / "experiments")
    fill()


if __name__ == "__main__":
    main(*sys.argv[1:])
