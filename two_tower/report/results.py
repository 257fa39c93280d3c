"""The end of a run: flat numbers for programs, a page for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import lightning as L

from two_tower.callbacks.doctor import Doctor
from two_tower.callbacks.samples import SampleQueries
from two_tower.callbacks.speed import Speed
from two_tower.console import command, name_of_check, say, say_next
from two_tower.data.stream.module import TripletData
from two_tower.files import finite, write_json, write_text
from two_tower.logger import RunLogger
from two_tower.model import TwoTower
from two_tower.report.card import Trained, model_card
from two_tower.run import Run
from two_tower.validation.full import FullValidation


def finish(run: Run, trainer: L.Trainer, validation: FullValidation) -> dict[str, Any]:
    """Write ``report.md`` and, last, ``results.json``, which is returned; say where everything is."""
    speed = next((c for c in trainer.callbacks if isinstance(c, Speed)), Speed())  # type: ignore[attr-defined]
    stopping = next((c for c in trainer.callbacks if getattr(c, "reason", "")), None)  # type: ignore[attr-defined]
    doctor = next((c for c in trainer.callbacks if isinstance(c, Doctor)), None)  # type: ignore[attr-defined]
    best, history = validation.best or {}, validation.history
    results: dict[str, Any] = {
        **{f"val/{m}": best[m] for m in validation.metrics if m in best},
        **{k: v for k, v in best.items() if k.startswith("hybrid/")},
        **{f"untrained/{m}": v for m, v in validation.untrained.items()},
        **{f"bm25/{m}": v for m, v in validation.bm25.items()},
        **{k: v for k, v in best.items() if k.startswith("val_")},
        **validation.groups,
        # Of the history, which a run that is continued after its last epoch still has.
        "train/loss": next((row["loss"] for row in reversed(history) if "loss" in row), math.nan),
        "train/triplets_per_second": speed.triplets_per_second,
        "seconds": speed.seconds,
        "validation/seconds": validation.overhead_seconds,
        "epochs": math.ceil(history[-1]["epoch"]) if history else 0,
        "best_epoch": math.ceil(best.get("epoch", 0)),
        "best_step": int(best.get("step", 0)),
        **({"stopped_at_step": stopping.stopped_at} if stopping else {}),
        **({"doctor/findings": doctor.count, "doctor/seconds": doctor.overhead_seconds} if doctor else {}),
        "queries": validation.queries,
        "documents": validation.documents,
        "all_documents": validation.all_documents,
        **({"new_documents": validation.new_documents} if validation.new_documents else {}),
    }
    if trainer.is_global_zero:
        reason = stopping.reason if stopping else ""
        data, model = cast(TripletData, trainer.datamodule), cast(TwoTower, trainer.lightning_module)  # type: ignore[attr-defined]
        validation.open(data)
        sentences, cost = _sentences(results, validation, reason), _cost(results)
        write_text(run.card, model_card(Trained(run, results, sentences, cost, validation, data, model, doctor)))
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.summarize(finite(results))
        write_json(run.results, finite(results))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # not before: a terminal may fail
            if isinstance(callback, SampleQueries | Doctor):
                callback.show()
        for sentence in ("", *sentences, cost):
            say(sentence)
        files = "report.md, results.json, checkpoints/best.ckpt" if best else "report.md, results.json"
        say(f"Run folder: {run.path} ({files})", style="dim")
        if doctor and any(finding.severity == "error" for finding in doctor.findings):
            say_next(command("two-tower", "doctor", run.path))  # which says how to begin anew
        elif best:
            search = command("two-tower", "search", run.path, "your question")
            say_next(command("python", "embed.py", f"run={run.path}"), search)
    return results


def _sentences(results: Mapping[str, Any], validation: FullValidation, reason: str) -> list[str]:
    """Why training ended, if early, and what came of it."""
    best = validation.best
    return [*([reason] if reason else []), verdict(results, validation.monitor, name_of_check(best) if best else "")]


def _cost(results: Mapping[str, Any]) -> str:
    validating, whole = results["validation/seconds"], results["seconds"]
    share = f" ({100 * validating / whole:.0f} %)" if whole else ""
    return f"Validation took {validating:.0f} s of {whole:.0f} s{share}."


def verdict(results: Mapping[str, Any], monitor: str, best: str = "") -> str:
    """A plain sentence on the best check, called ``best``, of trained weights beside its two baselines."""
    value, untrained, bm25 = (results.get(f"{source}/{monitor}") for source in ("val", "untrained", "bm25"))
    if value is None:
        return "No epoch was finished: there is no trained model to judge."
    epoch = f"epoch {results['best_epoch']}"
    name = epoch if best in ("", epoch) else f"{best} ({epoch})"
    if untrained is not None and value < untrained:
        return (
            f"Warning: {monitor} of the best check, {name}, is {value:.3f}, below the untrained towers' "
            f"{untrained:.3f}: training made search worse."
        )
    baselines = [("untrained", untrained), ("BM25", bm25)]
    beside = "".join(f", {baseline} {figure:.3f}" for baseline, figure in baselines if figure is not None)
    documents, whole = results.get("documents"), results.get("all_documents")
    part = f", against {documents:,} of {whole:,} passages" if documents != whole else ""
    return f"Best {name}: {monitor} {value:.3f}{beside}{part}."
