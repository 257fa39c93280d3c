"""The end of a run: flat numbers for programs, a page for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L

from two_tower.callbacks.speed import Speed
from two_tower.files import write_json, write_text
from two_tower.report.console import against, say
from two_tower.report.run import Run
from two_tower.validation.full import FullValidation

__all__ = ["finish", "report_page"]


def finish(run: Run, trainer: L.Trainer, validation: FullValidation) -> dict[str, Any]:
    """Write ``report.md`` and, last, ``results.json``; say where everything is.

    Returns:
        The results: ``val/METRIC`` of the best trained epoch, ``untrained/METRIC``, ``bm25/METRIC``,
        loss, speed and counts.
    """
    speed = next((c for c in trainer.callbacks if isinstance(c, Speed)), Speed())  # type: ignore[attr-defined]
    best = validation.best or {}
    results: dict[str, Any] = {
        **{f"val/{m}": best[m] for m in validation.metrics if m in best},
        **{f"untrained/{m}": v for m, v in validation.untrained.items()},
        **{f"bm25/{m}": v for m, v in validation.bm25.items()},
        # Of the history, which a run that is continued after its last epoch still has.
        "train/loss": next((row["loss"] for row in reversed(validation.history) if "loss" in row), math.nan),
        "train/triplets_per_second": speed.triplets_per_second,
        "seconds": speed.seconds,
        "epochs": trainer.current_epoch,
        "best_epoch": int(best.get("epoch", 0)),
        "queries": validation.queries,
        "documents": validation.documents,
        "all_documents": validation.all_documents,
    }
    if trainer.is_global_zero:
        write_text(run.path / "report.md", report_page(run.path.name, results, validation))
        write_json(run.results, _finite(results))
        _say_end(run, results, validation)
    return results


def _finite(results: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: a number that does not exist is null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in results.items()}


def _say_end(run: Run, results: Mapping[str, Any], validation: FullValidation) -> None:
    say("")
    for sentence in verdict(results, validation.monitor):
        say(sentence)
    say(f"Run folder: {run.path} (report.md, results.json, checkpoints/best.ckpt)", style="dim")
    say(
        f'Next: python embed.py run={run.path}   then   two-tower search {run.path} "your question"',
        style="dim",
    )


def verdict(results: Mapping[str, Any], monitor: str) -> list[str]:
    """Plain sentences on how the best trained epoch stands to its two baselines."""
    value = results.get(f"val/{monitor}")
    if value is None:
        return ["No epoch was finished: there is no trained model to judge."]
    sentences = []
    untrained, bm25 = results.get(f"untrained/{monitor}"), results.get(f"bm25/{monitor}")
    if untrained is not None and value <= untrained:
        sentences.append(
            f"Warning: the best trained epoch's {monitor} ({value:.3f}) is not above the untrained towers' "
            f"({untrained:.3f}): training made search worse."
        )
    elif untrained is not None:
        sentences.append(
            f"Best epoch {results['best_epoch']}: {monitor} {value:.3f}, untrained {untrained:.3f}"
            + (f", BM25 {bm25:.3f}" if bm25 is not None else "")
            + f"{_part(results)}."
        )
    return sentences


def _part(results: Mapping[str, Any]) -> str:
    """Where not all passages were ranked: how many."""
    documents, whole = results.get("documents"), results.get("all_documents")
    return f", against {documents:,} of {whole:,} passages" if documents != whole else ""


def report_page(name: str, results: Mapping[str, Any], validation: FullValidation) -> str:
    """The run as a Markdown page: baselines, every epoch, speed."""
    metrics = validation.metrics
    rows: list[tuple[str, Mapping[str, float]]] = []
    if validation.bm25:
        rows.append(("BM25", validation.bm25))
    if validation.untrained:
        rows.append(("untrained", validation.untrained))
    for row in validation.history:
        star = " *" if row is validation.best else ""
        rows.append((f"epoch {int(row['epoch'])}{star}", row))
    lines = [
        f"# {name}",
        "",
        *verdict(results, validation.monitor),
        "",
        f"{validation.queries:,} queries of the split `{validation.split}`, each against "
        f"{against(validation.documents, validation.all_documents)}. "
        "The star marks the best trained epoch, which is `checkpoints/best.ckpt`.",
        "",
        *_table(
            ["", "documents", *metrics],
            [[label, f"{validation.documents:,}", *(f"{means[m]:.3f}" for m in metrics)] for label, means in rows],
        ),
        "",
        f"{results['epochs']} epochs in {results['seconds']:.0f} s, "
        f"{results['train/triplets_per_second']:,.0f} triplets a second in training, "
        f"last training loss {results['train/loss']:.4f}.",
        "",
    ]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]
