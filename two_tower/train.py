"""``two-tower train``, the same as ``python train.py``: compose a configuration, build its parts, fit, report."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from two_tower.config.build import Composed, Types
from two_tower.config.entry import Job, run_hydra, this_job
from two_tower.config.saved import Composition, digest
from two_tower.errors import UserError, first_line, one_of
from two_tower.report.sweep import TrainingSweep
from two_tower.study import Pruned

if TYPE_CHECKING:
    from two_tower.callbacks._pruning import Watched
    from two_tower.data.base import Source
    from two_tower.new_words import NewWords
    from two_tower.run import Run


def train(
    config: dict[str, Any], composition: Composition | None = None, watched: Watched | None = None
) -> dict[str, Any]:
    """Train what a checked configuration describes, in its ``run_dir``; returns the results.

    Raises KeyboardInterrupt when stopped by Ctrl-C or SIGTERM; the same configuration continues. The figure that is
    ``watched`` is reported at each check, see `two_tower.callbacks._pruning`; raises `Pruned` if that ends the run.
    """
    import lightning as L
    import torch
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from two_tower.assemble import make_data, make_model, make_trainer, one_process, summary, try_parts, try_source
    from two_tower.callbacks._pruning import given_up, watch
    from two_tower.config import build
    from two_tower.console import command, say, say_next, set_mode, show_log, work_alone
    from two_tower.distributed import naming_lost
    from two_tower.logger import logged
    from two_tower.report.results import finish
    from two_tower.run import Run
    from two_tower.trainer import has_usual_length, usual_epochs

    if one_process(config["trainer"]):
        work_alone()
    set_mode(config["console"])
    show_log()
    try_parts(config)
    run, extensible = Run(Path(config["run_dir"])), not build("scheduler", config["scheduler"]).needs_length
    source, facts = try_source(config)
    if not run.start(config, composition, facts, extensible):
        say(f"{run.path} is complete: nothing to do. Its results are in {run.results}.")
        say_next(command("python", "embed.py", f"run={run.path}"))
        return run.read_results()

    torch.set_flush_denormal(True)  # denormal numbers slow the first epochs of a word table many times over
    L.seed_everything(config["seed"], verbose=False)
    try:
        validation = build("validation", config["validation"], run=run)
        trainer = make_trainer(config, run, validation)
        watch(trainer, validation, watched)
        data = make_data(config, run.tokenizer, source)
        further = _further_words(Run.existing(config["init_from"]), run, data.learned) if config["init_from"] else None
        data.trainer = trainer  # which part of a batch is this process' own
        model = make_model(config, data, further)
        if trainer.is_global_zero:
            run.keep_learned(data.corpus.written, config["init_from"])
        if has_usual_length(config["trainer"]):
            taught = data.batches.batch_size if data.loader.examples == "passages" else 0
            epochs = usual_epochs(data.batches_per_epoch, trainer.accumulate_grad_batches, taught)
            trainer.fit_loop.max_epochs = epochs
        say(summary(config, data, model))
        with logged(trainer, config), naming_lost():
            trainer.fit(model, data, ckpt_path=run.last if run.last.exists() else None, weights_only=True)
            if not (reason := given_up(trainer)):
                return finish(run, trainer, validation)
        raise Pruned(reason)
    except UserError:
        run.abandon()
        raise
    except MisconfigurationException as error:  # keys of the trainer that fit only other data
        run.abandon()
        raise UserError(f"trainer refuses its settings: {first_line(error)}") from error
    except SystemExit:  # what Lightning makes of KeyboardInterrupt
        if not trainer.is_global_zero:  # the first process tells; an error here would make Lightning kill it
            raise SystemExit(0) from None
        raise KeyboardInterrupt(f"at step {trainer.global_step}") from None
    finally:
        run.release()


def _further_words(before: Run, run: Run, source: Source) -> NewWords | None:
    """The words of a source that the run to start from lacks; the new run's tokenizer knows both."""
    from two_tower.loading import load_model
    from two_tower.new_words import NewWords

    model, tokenizer = load_model(before)
    words = None if before.has_learned(source.fingerprint()) else NewWords.find(before, model, tokenizer, source)
    if not run.tokenizer.exists():
        (tokenizer.extended(words.words) if words else tokenizer).save(run.tokenizer)
    return words


def resolve(composed: Composed) -> dict[str, Any]:
    """A composed configuration as checked plain values."""
    from two_tower.config import check

    return check(composed, _types())


def _types() -> dict[str, Types]:
    from two_tower.assemble import TOP_LEVEL
    from two_tower.data.base import LOADER_KEYS

    return {"": TOP_LEVEL, "data": LOADER_KEYS, "trainer": {"num_nodes": int | None}}


def main() -> None:
    """Run the experiment on the command line, or with ``-m`` the sweep."""
    run_hydra(_run_job, "train", TrainingSweep(_check_job), _types)


def _check_job(composed: Composed, metric: str | None = None) -> None:
    from two_tower.assemble import one_process, try_parts
    from two_tower.callbacks._pruning import Pruning
    from two_tower.config import build
    from two_tower.config.build import call
    from two_tower.run import Run

    config = resolve(composed)
    try_parts(config)
    if metric is not None:
        call("hydra.sweeper", Pruning, build("validation", config["validation"], run=Run(Path())), metric, None)
        if not one_process(config["trainer"]):
            raise UserError("A study trains each job in one process: set trainer.devices=1.")


def _run_job(composed: Composed) -> float | None:
    """Train; returns what a sweeper that looks for the best may want: what validation watches, or a study compares."""
    from two_tower.console import counter, print_document, set_mode

    set_mode(composed["console"])
    with counter("Loading PyTorch and Lightning"):  # which takes some seconds
        config = resolve(composed)
    job = this_job(composed)
    if job.sweep and "group" in config["logger"]:  # in W&B the runs of a sweep are one group
        config["logger"]["group"] = config["logger"]["group"] or job.sweep.name
    config["run_dir"] = os.path.expanduser(config["run_dir"] or _default_folder(config, job))
    metric = job.study.metric if job.study else f"val/{config['validation']['monitor']}"
    watched = (metric, partial(job.study.report, job.number)) if job.study else None
    results = train(config, job.composition, watched)
    if not job.sweep:
        print_document({"run_dir": config["run_dir"], **results})
    if job.study:
        return _figure(results, Path(config["run_dir"]), metric)
    return results.get(metric)


def _figure(results: dict[str, Any], folder: Path, metric: str) -> float:
    """A figure of a finished run, of its results or else the last of its history."""
    from two_tower.report.runs import read_history
    from two_tower.run import Run

    history = read_history(Run(folder).metrics)
    if metric not in results and metric not in history:
        raise UserError(f"hydra.sweeper.metric={metric} is no figure of {folder}; {one_of(metric, results | history)}.")
    figure = results[metric] if metric in results else history[metric][-1][1]
    return math.nan if figure is None else float(figure)  # as JSON has it


def _default_folder(config: dict[str, Any], job: Job) -> str:
    """Named so that the same command finds it again."""
    if job.sweep:
        return os.path.relpath(job.folder)
    names = [job.composition.choices[group] for group in ("data", "tower", "loss", "negatives")]
    return f"runs/{'-'.join(names)}-{digest(config)}"
