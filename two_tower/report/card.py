"""The card of a model (Mitchell et al. 2019): what it is, what made it, what it is worth, and where that ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from two_tower.callbacks.doctor import Doctor
from two_tower.config import read
from two_tower.config.saved import Composition, choices_of
from two_tower.console import against, command, name_of_check
from two_tower.data.base import JUDGED_ENOUGH
from two_tower.data.stream.module import TripletData
from two_tower.files import read_json
from two_tower.metrics import read_per_query
from two_tower.model import TwoTower
from two_tower.ragged import Ragged
from two_tower.report.blocks import Block, Heading, markdown
from two_tower.report.readme import QUOTES, UNSTATED, licence_of
from two_tower.report.worth import examples, worth
from two_tower.run import Run
from two_tower.validation._groups import NAMES, SEEN, UNSEEN, means_by_group
from two_tower.validation.full import FullValidation

# Groups of the configuration that make a model what it is, in the order in which text runs through them.
_GROUPS = ("data", "tokenizer", "embedding", "tower", "teacher", "loss", "negatives", "optimizer", "scheduler")
NOTABLE = 0.001  # shares from which on something is worth a line


@dataclass(frozen=True, eq=False)
class Trained:
    """What there is to tell when a run ends."""

    run: Run
    results: Mapping[str, Any]  # as in ``results.json``
    sentences: Sequence[str]  # why it ended, if early, and what came of it
    cost: str  # a sentence on its time
    validation: FullValidation
    data: TripletData
    model: TwoTower
    doctor: Doctor | None

    @cached_property
    def config(self) -> dict[str, Any]:
        return read(self.run.config)

    @cached_property
    def composition(self) -> Composition:
        return self.run.composition()

    @cached_property
    def choices(self) -> dict[str, str]:
        """Group → choice."""
        return choices_of(self.config, self.composition)


def model_card(of: Trained) -> str:
    """The card as a Markdown page."""
    blocks: list[Block] = [Heading(of.run.path.name, 1), "\n".join(of.sentences)]
    if of.validation.best:
        per_query = read_per_query(of.run.path / "per_query.csv")
        blocks += [Heading("Results"), *worth(per_query, of.validation)]
        blocks += [Heading(QUOTES), *examples(per_query, of.validation, of.run.path / "run.trec")]
    blocks += [Heading("The model"), _list(_model(of)), Heading("What it was trained on"), _list(_data(of))]
    blocks += [Heading("How it was trained"), *_training(of), Heading("Limits"), _list(_limits(of))]
    blocks += [Heading("What the doctor found"), _list(_findings(of))]
    blocks += [Heading("Licence"), _licence(of.run), Heading("Every check"), *_checks(of)]
    return markdown(blocks)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _model(of: Trained) -> list[str]:
    towers, words, taught_by = of.model, of.data.tokenizer, of.config["teacher"].get("model")
    parameters = sum(parameter.numel() for parameter in towers.parameters())
    shared = "one tower for queries and passages" if towers.shared else "a tower each for queries and passages"
    kind = "words" if words.rule else "pieces of words"
    languages = ", ".join(words.rule.languages) if words.rule else ""
    lines = [
        f"**Tower**: `{of.choices['tower']}`, {shared}; {parameters / 1e6:.1f} million parameters.",
        f"**Vectors**: {towers.document_tower.dim} dimensions; nearness is the `{towers.similarity.name}` similarity.",
        f"**Vocabulary**: {len(words):,} {kind}{f'; languages found in the texts: {languages}' if languages else ''}.",
        f"**Reads** the first {words.query_tokens} tokens of a query, the first {words.document_tokens} of a passage.",
        f"**Teacher**: {f'`{Path(taught_by).name}`' if taught_by else 'none, it learned from judgements'}.",
    ]
    if of.config["init_from"]:
        lines.append(f"**Began** with the weights of `{of.config['init_from']}`.")
    made = read_json(of.run.environment) or {}
    packages = ", ".join(f"{name} {made.get('packages', {}).get(name)}" for name in ("torch", "lightning"))
    return [*lines, f"**Made with** two-tower {made.get('two_tower')}, {packages}, Python {made.get('python')}."]


def _data(of: Trained) -> list[str]:
    data, validation, loader = of.data, of.validation, of.data.loader
    whole, learned = len(data.searched), len(data.corpus)
    lines = [f"**Collection**: {data.source.name} (`data={of.choices['data']}`), {whole:,} passages."]
    if whole > learned:
        out = whole - learned
        lines.append(
            f"**Kept out of training**: {out:,} passages ({100 * out / whole:.1f} %), to see how new ones are found."
        )
    what = "passages that the teacher had read" if loader.examples == "passages" else "judged pairs or triplets"
    lines.append(f"**Examples** of an epoch: {len(data.training_set.examples):,} {what}, of `{loader.train_split}`.")
    others = [name for name in data.source.splits() if name not in (loader.train_split, validation.split)]
    told = (
        f"; there {'is' if len(others) == 1 else 'are'} also `{'`, `'.join(others)}`, not looked at" if others else ""
    )
    lines.append(f"**Validation**: {validation.queries:,} queries of `{validation.split}`{told}.")
    lengths = f"of a passage {_lengths(data.corpus.tokens)}, of a validation query {_lengths(data.validation.tokens)}"
    return [*lines, f"**Tokens** that are read: {lengths}.", f"**Licence**: {licence_of(of.run) or UNSTATED}."]


def _lengths(tokens: Ragged) -> str:
    lengths = np.diff(tokens.offsets.numpy())
    middle, most = np.percentile(lengths, [50, 95])
    return f"{middle:.0f} in the middle, at most {most:.0f} in 95 %"


def _training(of: Trained) -> list[Block]:
    again = "No command of train.py made it; `config.yaml` holds every setting."
    if of.composition.choices:
        again = f"    {command('python', 'train.py', *of.composition.again)}"
    results, config, data = of.results, of.config, of.data
    chosen = ", ".join(f"`{group}={of.choices[group]}`" for group in _GROUPS if group in of.choices)
    rate = config["optimizer"].get("lr")
    steps = int(of.validation.history[-1]["step"]) if of.validation.history else 0
    lines = [
        f"**Parts**: {chosen}.",
        f"**Steps**: {steps:,} in {results['epochs']} epochs, {data.batches.batch_size:,} examples in each; the best "
        f"were {results['best_step']:,}. Seed {config['seed']}.",
        *([f"**Optimizer**: `{of.choices['optimizer']}`, learning rate {rate:g}."] if rate else []),
    ]
    return [again, _list(lines)]


def _limits(of: Trained) -> list[str]:
    """What the figures do not say, and what the model is not for."""
    results, validation, data, words = of.results, of.validation, of.data, of.data.tokenizer
    lines = [
        "It ranks passages for a query by how near they are. It does not tell whether any of them answers it, or is "
        "true; what its texts leave out or judge unfairly, it has learned so.",
        f"Every figure is against {against(validation.documents, validation.all_documents)}. Among more passages an "
        "answer has more rivals, so figures are lower there.",
    ]
    if validation.queries < JUDGED_ENOUGH:
        lines.append(f"{validation.queries} queries are few: the intervals are wide for that reason.")
    checks, split = len(validation.history), validation.split
    if checks > 1:
        report = "a figure to report comes from queries that had no say"
        lines.append(f"The best of {checks} checks was chosen on these very queries of `{split}`: {report}.")
    unknown = float((data.validation.tokens.ids == words.unknown_id).float().mean())
    if words.rule:
        lines.append(
            f"{100 * unknown:.1f} % of the words of these queries are not in its vocabulary. Such a word says nothing "
            "to it, nor does text in languages that it was not trained on."
        )
    cut = float((np.diff(data.corpus.tokens.offsets.numpy()) >= words.document_tokens).mean())
    if cut >= NOTABLE:
        lines.append(
            f"{100 * cut:.1f} % of the passages are as long as it reads, {words.document_tokens} tokens, or longer."
        )
    return [*lines, _memory(results, validation.monitor), *_sampled(of), _beside_bm25(results, validation.monitor)]


def _memory(results: Mapping[str, Any], metric: str) -> str:
    """How it finds passages that it has not learned from, if that is known."""
    known = f"val_{UNSEEN}/{metric}" in results
    beside = [
        f"{NAMES[group]} {results[key]:.3f}" + (f" (BM25 {results[bm25]:.3f})" if bm25 in results else "")
        for group in (SEEN, UNSEEN)
        if (key := f"val_{group}/{metric}") in results and (bm25 := f"bm25_{group}/{metric}")
    ]
    start = "It may know by heart what it was trained on, and find new passages less well"
    if not known:
        return (
            f"{start}; how well is not measured here (`data.unseen_share=0.1` does, which keeps some out of training)."
        )
    return f"{start}; {metric} by whether the answers were seen in training: {', '.join(beside)}."


def _sampled(of: Trained) -> list[str]:
    sample = of.config["teacher"].get("sample")
    return [f"It learned from {sample:,} of the passages only, spread over all."] if sample else []


def _beside_bm25(results: Mapping[str, Any], metric: str) -> str:
    own, bm25, both = (results.get(f"{system}/{metric}") for system in ("val", "bm25", "hybrid"))
    if own is None or bm25 is None:
        return "BM25 was not measured beside it (`validation.bm25=false`)."
    who = "BM25 has the higher" if bm25 > own else "It has the higher"
    if both is None:
        return f"{who} {metric}; what both together have, `two-tower evaluate RUN --hybrid` tells."
    return f"{who} {metric}, both fused have {both:.3f}: search with `--hybrid` where that is the highest."


def _findings(of: Trained) -> list[str]:
    if of.doctor is None:
        return ["No doctor watched this run; `two-tower doctor RUN` looks at it now."]
    told = [f"**{f.id}** ({f.severity}): {f.evidence} Try: {f.remedy}" for f in of.doctor.findings]
    return told or ["Nothing is wrong that it knows of."]


def _licence(run: Run) -> str:
    return (
        f"Its data: {licence_of(run) or UNSTATED}. A model may be bound by the terms of what it learned from, its "
        "teacher and word vectors included."
    )


def _checks(of: Trained) -> list[Block]:
    """Baselines and every check, and what they took."""
    results, validation = of.results, of.validation
    return [
        f"{validation.queries:,} queries of the split `{validation.split}`, each against "
        f"{against(validation.documents, validation.all_documents)}. "
        "The star marks the best check, which is `checkpoints/best.ckpt`.",
        "\n".join(_table(validation)),
        f"{results['epochs']} epochs in {results['seconds']:.0f} s, "
        f"{results['train/triplets_per_second']:,.0f} triplets a second in training, "
        f"last training loss {results['train/loss']:.4f}.\n{of.cost}",
    ]


def _table(validation: FullValidation) -> list[str]:
    metrics, rows = validation.metrics, list[tuple[str, int, Mapping[str, float]]]()

    def add(name: str, means: Mapping[str, float], system: str, groups: Mapping[str, float]) -> None:
        rows.append((name, validation.documents, means))
        for group, its in means_by_group(system, groups, metrics).items():
            rows.append((NAMES[group], validation.ranked(group), its))

    add("BM25", validation.bm25, "bm25", validation.groups)
    add("untrained", validation.untrained, "untrained", validation.groups)
    for row in validation.history:
        add(name_of_check(row) + (" *" if row is validation.best else ""), row, "val", row)
        if "hybrid_seconds" in row:
            rows.append(("with BM25", validation.documents, {m: row[f"hybrid/{m}"] for m in metrics}))
    lines = [["", "documents", *metrics], ["---", *["---:"] * (len(metrics) + 1)]]
    lines += [[name, f"{ranked:,}", *(f"{means[m]:.3f}" for m in metrics)] for name, ranked, means in rows if means]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
