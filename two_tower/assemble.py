"""From a checked configuration to the parts of a run that is to be trained: data, model, trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.accelerators import MPSAccelerator
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from torch import Tensor

from two_tower.callbacks.checkpoint import AtomicCheckpointIO
from two_tower.callbacks.speed import TrainingProgress
from two_tower.config import build
from two_tower.config.build import call, target_of
from two_tower.console import Mode, on_terminal, say
from two_tower.cross_batch import CrossBatchMemory, CrossBatchNegatives
from two_tower.data.base import LOADER_KEYS, Loader, Source
from two_tower.data.stream.module import Taught, TripletData
from two_tower.embedding.base import Embedding, Further
from two_tower.engine import make_engine
from two_tower.errors import UserError
from two_tower.loading import load_model, make_source, make_towers
from two_tower.logger import make_loggers
from two_tower.loss.base import Loss
from two_tower.model import TwoTower
from two_tower.new_words import NewWords, facts_of
from two_tower.optimizer.base import parameter_groups
from two_tower.run import Run
from two_tower.similarity import Similarity, SimilarityName
from two_tower.teacher._vectors import TeacherStore
from two_tower.tokenizer.base import Tokenizer
from two_tower.tower.base import Tower, word_tables
from two_tower.trainer import USUAL_EPOCHS, RowDDP, check_keys, has_usual_length, launched
from two_tower.validation.full import FullValidation

# The keys of conf/train.yaml that belong to no group, with their types.
TOP_LEVEL = {"similarity": SimilarityName, "shared_towers": bool, "seed": int, "run_dir": str | None, "console": Mode}
TOP_LEVEL |= {"init_from": Path | None}
TOP_LEVEL |= {"encode_chunk": int | None, "cross_batch_memory": int, "cross_batch_start": int, "cross_device": bool}


def try_parts(config: Mapping[str, Any]) -> None:
    """Build every part that needs no data, so that a wrong value is refused before anything is read."""
    _loader(config)
    call("trainer", check_keys, config["trainer"])
    for group in ("tokenizer", "negatives", "scheduler"):
        build(group, config[group])
    embedding: Embedding = build("embedding", config["embedding"])
    towers = make_towers(config, ["", "a"], embedding.dim, embedding)
    loss = build("loss", config["loss"])
    if config["data"].get("examples") == "passages" and "vectors" not in loss.needs:
        raise UserError("data.examples=passages leaves only a teacher to learn from: use loss=distillation, or judged.")
    if config["cross_batch_memory"] < 0:
        raise UserError(f"cross_batch_memory={config['cross_batch_memory']} must be at least 1, or 0 for none.")
    model = call("", TwoTower, *towers, Similarity(config["similarity"]), loss, encode_chunk=config["encode_chunk"])
    if not any(parameter.requires_grad for parameter in model.parameters()):
        freeze = str(config["embedding"]["freeze"]).lower()
        remedy = "set embedding.freeze=false, or let the tower learn something else (tower.learn_weights=true)."
        raise UserError(f"embedding.freeze={freeze} leaves nothing to train: {remedy}")
    build("optimizer", config["optimizer"])(parameter_groups({"model": model}))


def try_source(config: Mapping[str, Any]) -> tuple[Source, dict[str, Any]] | tuple[None, None]:
    """The data and what tells whether it has changed; None where it cannot be read, which is said when it is."""
    try:
        source = make_source(config["data"])
        return source, source.facts()
    except UserError:
        return None, None


def make_data(config: Mapping[str, Any], tokenizer_path: Path, source: Source | None = None) -> TripletData:
    """The data module of a configuration, on its source if it is open already; reads nothing yet."""
    negatives, loss = build("negatives", config["negatives"]), build("loss", config["loss"])
    in_batch, source = negatives.in_batch_negatives, make_source(config["data"]) if source is None else source

    def common_words() -> Sequence[str]:  # for a new tokenizer: a finished run does without its teacher, or its file
        return build("embedding", config["embedding"]).common_words()

    known = Run.existing(config["init_from"]).read_learned() if config["init_from"] else None
    return TripletData(
        source, build("tokenizer", _tokenizer(config)), tokenizer_path, negatives,
        loss.in_batch_negatives if in_batch is None else in_batch, _loader(config), seed=config["seed"],
        taught=Taught(common_words, config["teacher"].get("sample"), known),
    )  # fmt: skip


def _tokenizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the tokenizer, with what the other parts need where it is null."""
    rarest = getattr(target_of(config["embedding"]), "rarest_word", None)
    needs = {"min_frequency": rarest, "special_tokens": getattr(target_of(config["tower"]), "special_tokens", False)}
    return {key: needs.get(key) if value is None else value for key, value in config["tokenizer"].items()}


def _loader(config: Mapping[str, Any]) -> Loader:
    return call("data", Loader, **{key: config["data"][key] for key in LOADER_KEYS if key in config["data"]})


def make_model(config: Mapping[str, Any], data: TripletData, further: NewWords | None = None) -> TwoTower:
    """A model to train: word tables initialised from the embedding group and the corpus, or from another run.

    ``further`` are the words that this run lacks.
    """
    data.open()
    torch.manual_seed(config["seed"])
    size = len(data.tokenizer)
    embedding: Embedding = build("embedding", config["embedding"])
    towers = make_towers(config, data.tokenizer.spelling, embedding.dim, embedding)
    tables = [table for tower in dict.fromkeys(towers) for table in word_tables(tower).values()]
    idf: dict[str, Tensor] = {}
    if tables:  # a transformer has none
        vectors = embedding.vectors(data.tokenizer, data.corpus)
        weights = embedding.token_weights(data.corpus.tokens, size)
        idf = {} if weights is None else {"idf": weights}  # other collections have others
        for table in tables:
            table.initialize(vectors, weights, embedding.pretrained_dims, embedding.coverage)
    loss: Loss = build("loss", config["loss"])
    if "margins" in loss.needs and not data.has_margins:
        lacks = f"This loss learns from a teacher's scores of triples, and {data.source.name} brings none"
        remedy = "a column of margins (data=beir) or two of scores (data=msmarco_passage)"
        raise UserError(f"{lacks}: use negatives=given and triples with {remedy}.")
    facts = _facts(config, data.tokenizer, embedding) | idf
    if config["init_from"]:
        before = Run.existing(config["init_from"])
        _start_from(before, towers, further)
        earlier = facts_of(before)
        if "origin" in facts and "origin" in earlier:
            # New words to come go through its maps, then through this one's.
            facts |= {key: earlier[key] for key in ("origin", "maps") if key in earlier}
    return TwoTower(
        *towers, Similarity(config["similarity"]), loss,
        build("optimizer", config["optimizer"]), build("scheduler", config["scheduler"]), seed=config["seed"],
        facts=facts,
        encode_chunk=config["encode_chunk"], cross_batch=_cross_batch(config, data, towers[1].dim),
        teacher=_taught(config, data) if "vectors" in loss.needs else None,
    )  # fmt: skip


def _taught(config: Mapping[str, Any], data: TripletData) -> TeacherStore:
    return TeacherStore.prepare(build("teacher", config["teacher"]), data, make_engine(config))


def _facts(config: Mapping[str, Any], tokenizer: Tokenizer, embedding: Embedding) -> dict[str, Any]:
    """What a checkpoint holds besides weights; with maps of the words' first vectors, how new words get theirs."""
    facts = {"config": dict(config), "tokenizer": tokenizer.fingerprint, "width": embedding.dim}
    fits = isinstance(embedding, Further) and not (embedding.needs_map and embedding.pull is None)
    return {**facts, "origin": dict(embedding.origin or {})} if fits else facts


def _start_from(run: Run, towers: tuple[Tower, Tower], further: NewWords | None) -> None:
    """Give towers the weights of another run's best checkpoint; they must be built alike."""
    other = load_model(run, further)[0]
    try:
        for own, its in zip(towers, (other.query_tower, other.document_tower), strict=True):
            own.load_state_dict(its.state_dict())
    except RuntimeError as error:
        where = str(error).splitlines()[-1].strip()
        raise UserError(f"init_from={run.path} holds other towers than this configuration: {where}") from error


def one_process(trainer: Mapping[str, Any]) -> bool:
    """Whether the keys of ``trainer`` ask for a single device, whatever a scheduler's variables say."""
    return trainer.get("devices", 1) in (1, "1") and trainer.get("num_nodes", 1) == 1


def _devices(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """What the trainer is given besides its own keys, for the device and the processes."""
    more: dict[str, Any] = {"plugins": [AtomicCheckpointIO()]}
    if one_process(trainer):
        more["plugins"].append(LightningEnvironment())  # not SLURM's, nor torchrun's
        return more | _on_apple(trainer)
    if SLURMEnvironment.detect():  # a run continues from its own last checkpoint
        more["plugins"].append(SLURMEnvironment(auto_requeue=False))
    more |= launched(trainer)
    if trainer.get("strategy") in (None, "auto"):
        more["strategy"] = RowDDP()
    return more | _on_apple(trainer)


def _on_apple(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The accelerator on a machine whose GPU cannot train."""
    accelerator, lacks = trainer.get("accelerator", "auto"), "has neither float64 nor sparse gradients"
    apple = MPSAccelerator.is_available() and not torch.cuda.is_available()
    if accelerator == "mps" or (accelerator == "gpu" and apple):
        raise UserError(f"trainer.accelerator={accelerator} is Apple's GPU here, {lacks}: set trainer=cpu.")
    if accelerator == "auto" and apple:
        say(f"Training on the CPU: Apple's GPU {lacks}.")
        return {"accelerator": "cpu"}
    return {}


def make_trainer(config: Mapping[str, Any], run: Run, validation: FullValidation) -> L.Trainer:
    """The trainer of a configuration, with its callbacks and loggers."""
    offer = {"run": run, "validation": validation, "engine": make_engine(config)}
    callbacks = [validation, *(build(f"callbacks.{name}", c, offer=offer) for name, c in config["callbacks"].items())]
    settings = {**config["trainer"]}
    if has_usual_length(settings):
        settings["max_epochs"] = USUAL_EPOCHS  # until the data is read, see `usual_epochs`
    wanted = settings.get("enable_progress_bar")
    bar = on_terminal() if wanted is None else wanted
    return build(
        "trainer", {**settings, **_devices(settings)}, enable_progress_bar=bar, default_root_dir=run.path,
        callbacks=[*callbacks, TrainingProgress()] if bar else callbacks, logger=make_loggers(config["logger"], run),
        use_distributed_sampler=False,  # the loader gives each rank its own part
    )  # fmt: skip


def _cross_batch(config: Mapping[str, Any], data: TripletData, dim: int) -> CrossBatchNegatives | None:
    size, cross_device = config["cross_batch_memory"], config["cross_device"]
    if not size and not cross_device:
        return None
    memory = CrossBatchMemory(size, dim) if size else None
    return CrossBatchNegatives(data.negative_mask, cross_device, memory, config["cross_batch_start"])


def summary(config: Mapping[str, Any], data: TripletData, model: TwoTower) -> str:
    """One line on what is about to be trained on what."""
    tower = type(model.query_tower).__name__ + (", shared" if model.shared else ", one each")
    parameters = sum(p.numel() for p in model.parameters())
    return (
        f"{data.source.name}: {len(data.training_set.examples):,} training examples in {data.batches_per_epoch} "
        f"batches of {data.batches.batch_size}, {len(data.validation):,} validation queries, {len(data.corpus):,} "
        f"passages{_kept_out(data)}, {len(data.tokenizer):,} words. "
        f"{tower}, {parameters / 1e6:.1f} million parameters, {config['similarity']}, {model.device}."
    )


def _kept_out(data: TripletData) -> str:
    kept_out = len(data.searched) - len(data.corpus)
    return f" (and {kept_out:,} that only validation sees)" if kept_out else ""
