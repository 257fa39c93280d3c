"""A run as a folder of Sentence Transformers, for programs that do not know this package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from two_tower.encode import Encoder
from two_tower.errors import UserError, naming
from two_tower.files import atomic_path, require_new, write_json, write_text
from two_tower.report.readme import readme
from two_tower.run import Run
from two_tower.similarity import Similarity
from two_tower.tokenizer.base import Tokenizer
from two_tower.tower.average import AverageTower
from two_tower.tower.base import Tower
from two_tower.tower.transformer import TransformerTower

# Where Sentence Transformers 5 has its modules; later versions know these names too.
PACKAGE = "sentence_transformers.models"
# The library has no module that scales two parts of a vector: the exported folder brings its own.
HALVES = "two_tower_halves"
HALVES_CODE = '''"""Scales the first dimensions of a text's vector to length 1, the others to another length."""

import torch
from sentence_transformers.models import Module
from torch.nn.functional import normalize


class Halves(Module):
    config_keys = ["dim", "scale"]

    def __init__(self, dim, scale):
        super().__init__()
        self.dim, self.scale = dim, scale

    def forward(self, features):
        vectors = features["sentence_embedding"]
        halves = normalize(vectors[:, : self.dim], dim=1), self.scale * normalize(vectors[:, self.dim :], dim=1)
        return {**features, "sentence_embedding": torch.cat(halves, dim=1)}

    def save(self, output_path, *args, safe_serialization=True, **kwargs):
        self.save_config(output_path)
'''
LOADING = """\
```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER"{options})  # where this file is
queries = model.encode_query(["a question"])
passages = model.encode_document(["a passage that answers it", "another one"])
print(model.similarity(queries, passages))
```"""
# What a transformer's tokenizer consists of besides tokenizer.json.
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "added_tokens.json")


@dataclass(frozen=True)
class _Module:
    """One step from text to vector."""

    kind: str  # its class in Sentence Transformers
    settings: Mapping[str, Any] | None = None  # its config.json
    weights: Mapping[str, Tensor] | None = None  # its model.safetensors
    tokenizer: Mapping[str, Any] | None = None  # its tokenizer.json
    tower: TransformerTower | None = None  # the transformer that it holds

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self.tower is not None:
            with naming(folder):
                self.tower.transformer.save_pretrained(folder, safe_serialization=True)
            source = Path(str(self.tower.transformer.name_or_path))
            for name in TOKENIZER_FILES:
                if (source / name).exists():
                    shutil.copy(source / name, folder / name)
        if self.settings is not None:
            name = "sentence_bert_config.json" if self.tower is not None else "config.json"
            write_json(folder / name, self.settings)
        if self.weights is not None:
            with atomic_path(folder / "model.safetensors") as file:
                save_file({name: value.detach().contiguous() for name, value in self.weights.items()}, file)
        if self.tokenizer is not None:
            write_text(folder / "tokenizer.json", json.dumps(self.tokenizer, ensure_ascii=False))


def export_run(run: Path | str, path: Path) -> list[str]:
    """Write a folder that ``sentence_transformers.SentenceTransformer(path)`` loads, with equal vectors.

    The run's best checkpoint is exported; ``README.md`` is its card. Two separate towers become a router:
    ``encode_query`` and ``encode_document`` take theirs. Returns sentences on what is different there.
    """
    require_new(path)
    known = Run.existing(run)
    encoder = Encoder.load(known)
    model, words = encoder.model, encoder.tokenizer
    remarks: list[str] = []
    documents = _modules(model.document_tower, model.similarity, words, words.document_tokens)
    if model.shared:
        listed = [(m.kind, "" if m.tower is not None else f"{i}_{m.kind}") for i, m in enumerate(documents)]
        for module, (_, folder) in zip(documents, listed, strict=True):
            module.write(path / folder)
        _write_list(path, listed)
        if (limit := words.query_tokens) < words.document_tokens:
            remarks = [f"Queries are cut after {words.document_tokens} tokens there, not after {limit}."]
    else:
        queries = _modules(model.query_tower, model.similarity, words, words.query_tokens)
        _write_router(path, {"query": queries, "document": documents})
    has_code = any(module.kind == HALVES for module in documents)
    if has_code:
        write_text(path / f"{HALVES}.py", HALVES_CODE)
        remarks.append("It holds code, for the lexical half: load it with trust_remote_code=True.")
    name = model.similarity.name
    facts: dict[str, Any] = {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": name, "__version__": {}}
    write_json(path / "config_sentence_transformers.json", facts)
    how = LOADING.format(options=", trust_remote_code=True" if has_code else "")
    write_text(path / "README.md", readme(known, words.rule.languages if words.rule else (), how))
    return remarks


def _modules(tower: Tower, similarity: Similarity, words: Tokenizer, limit: int) -> list[_Module]:
    if isinstance(tower, AverageTower):
        modules = _average(tower, similarity, words.limited(limit))
    elif isinstance(tower, TransformerTower):
        modules = _transformer(tower, words.limited(limit), limit)
    else:
        remark = f"Sentence Transformers has no module for a {type(tower).__name__}"
        raise UserError(f"{remark}: only runs with tower=average or tower=transformer can be exported.")
    return [*modules, _Module("Normalize")] if similarity.name == "cosine" else modules


def _average(tower: AverageTower, similarity: Similarity, definition: Mapping[str, Any]) -> list[_Module]:
    """A plain mean of vectors times their weights: where lengths are set later, total weights make no difference."""
    weights, lexical = tower.words.log_weights.exp(), tower.lexical
    if lexical and tower.tanh:
        raise UserError("An average with tower.tanh=true and a lexical half cannot be exported: leave one of them out.")
    if bool((weights == weights[0]).all()):
        weights = torch.ones_like(weights)
    elif lexical is None and (similarity.name != "cosine" or tower.tanh):
        what = "tower.tanh=true" if tower.tanh else f"similarity={similarity.name}"
        works = "similarity=cosine without tanh works, and so does embedding.weights=uniform tower.learn_weights=false"
        why = f"Sentence Transformers' plain mean gives vectors of other lengths ({works})"
        raise UserError(f"A weighted average with {what} cannot be exported: {why}.")
    vectors = tower.words.vectors if lexical is None else torch.cat([tower.words.vectors, lexical.rows()], dim=1)
    table = {"embedding.weight": vectors * weights[:, None]}
    modules = [_Module("StaticEmbedding", weights=table, tokenizer=definition)]
    if tower.tanh or not isinstance(tower.projection, nn.Identity):
        modules.append(_dense(tower, "activation.Tanh" if tower.tanh else "linear.Identity"))
    if lexical:
        modules.append(_Module(HALVES, {"dim": tower.dim - lexical.dims, "scale": lexical.scale}))
    return modules


def _transformer(tower: TransformerTower, definition: Mapping[str, Any], limit: int) -> list[_Module]:
    width = tower.transformer.config.hidden_size
    modes = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
    pooling = {"word_embedding_dimension": width, "pooling_mode": modes[tower.pooling]}
    settings = {"max_seq_length": limit, "do_lower_case": False}
    modules = [_Module("Transformer", settings, tokenizer=definition, tower=tower), _Module("Pooling", pooling)]
    if not isinstance(tower.projection, nn.Identity):
        modules.append(_dense(tower, "linear.Identity"))
    return modules


def _dense(tower: AverageTower | TransformerTower, activation: str) -> _Module:
    matrix = tower.projection.weight if isinstance(tower.projection, nn.Linear) else torch.eye(tower.dim)
    if isinstance(tower, AverageTower) and tower.lexical:
        matrix = torch.block_diag(matrix, torch.eye(tower.lexical.dims))
    settings: dict[str, Any] = {"in_features": matrix.shape[1], "out_features": tower.dim, "bias": False}
    settings["activation_function"] = f"torch.nn.modules.{activation}"
    return _Module("Dense", settings, {"linear.weight": matrix})


def _class(kind: str) -> str:
    return f"{HALVES}.Halves" if kind == HALVES else f"{PACKAGE}.{kind}"


def _write_list(path: Path, modules: Sequence[tuple[str, str]]) -> None:
    listed = [
        {"idx": i, "name": str(i), "path": folder, "type": _class(kind)} for i, (kind, folder) in enumerate(modules)
    ]
    write_text(path / "modules.json", json.dumps(listed, indent=2))


def _write_router(path: Path, routes: Mapping[str, Sequence[_Module]]) -> None:
    types, structure = {}, {}
    for route, modules in routes.items():
        names = [f"{route}_{i}_{module.kind}" for i, module in enumerate(modules)]
        for name, module in zip(names, modules, strict=True):
            module.write(path / name)
            types[name] = _class(module.kind)
        structure[route] = names
    parameters = {"default_route": "document", "allow_empty_key": True}
    write_json(path / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})
    _write_list(path, [("Router", "")])
