"""Run one experiment: compose a configuration, build its parts, fit, report.

python train.py [group=choice] [key=value]      one run; the same command continues or repeats nothing
python train.py -m tower=average,gru seed=0,1   a sweep
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from two_tower.config.entry import run_hydra
from two_tower.errors import UserError


def train(config: dict[str, Any]) -> dict[str, Any]:
    """Train what a checked configuration describes, in its run folder; returns the results.

    Raises:
        UserError: a value that its component refuses, or a mistake in the data.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM; the same configuration continues.
    """
    import lightning as L
    import torch

    from two_tower.assemble import make_data, make_model, summary, try_parts
    from two_tower.callbacks.checkpoint import AtomicCheckpointIO
    from two_tower.config import build
    from two_tower.logger import logged, make_loggers
    from two_tower.report.console import on_terminal, say, show_log
    from two_tower.report.results import finish
    from two_tower.report.run import Run

    show_log()
    try_parts(config)
    run = Run(Path(config["run_dir"]))
    if not run.start(config):
        say(f"{run.path} is complete: nothing to do. Its results are in {run.results}.")
        return run.read_results()

    torch.set_flush_denormal(True)  # denormal numbers slow the first epochs of a word table many times over
    L.seed_everything(config["seed"], verbose=False)
    bar = config["trainer"].get("enable_progress_bar")
    try:
        validation = build(config["validation"], run=run)
        offer = {"run": run, "validation": validation}
        callbacks = [validation, *(build(c, offer=offer) for c in config["callbacks"].values())]
        trainer = build(
            config["trainer"],
            enable_progress_bar=on_terminal() if bar is None else bar,
            callbacks=callbacks,
            logger=make_loggers(config["logger"], run),
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run.path,
            use_distributed_sampler=False,  # the loader gives each rank its own part
        )
        data = make_data(config, run.tokenizer)
        data.trainer = trainer  # which part of a batch is this process' own
        model = make_model(config, data)
        say(summary(config, data, model))
        with logged(trainer, config):
            trainer.fit(model, data, ckpt_path=run.last if run.last.exists() else None, weights_only=True)
    except UserError:
        run.abandon()
        raise
    except SystemExit:  # what Lightning makes of KeyboardInterrupt
        if not trainer.is_global_zero:  # the first process tells; an error here would make Lightning kill it
            raise SystemExit(0) from None
        raise KeyboardInterrupt(f"at step {trainer.global_step}") from None
    return finish(run, trainer, validation)


def resolve(composed: DictConfig) -> dict[str, Any]:
    """Check a composed configuration and settle the run folder."""
    from two_tower.assemble import LOADER_KEYS, TOP_LEVEL
    from two_tower.config import check, digest

    config = check(composed, {"": TOP_LEVEL, "data": LOADER_KEYS})
    if config["run_dir"] is None:
        hydra_config = HydraConfig.get()
        parts = [hydra_config.runtime.choices[group] for group in ("data", "tower", "loss", "negatives")]
        in_sweep = hydra_config.mode == RunMode.MULTIRUN
        name = f"runs/{'-'.join(parts)}-{digest(config)}"
        config["run_dir"] = hydra_config.runtime.output_dir if in_sweep else name
    return config


def main(composed: DictConfig) -> None:
    """Check, train."""
    train(resolve(composed))


if __name__ == "__main__":
    run_hydra(main, "train")
