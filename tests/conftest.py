"""Generated collections, so that no test needs a download.

What takes seconds to import is imported where it is used: the processes of the tests start after this module.
"""

import atexit
import copy
import functools
import gc
import json
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # the processes of the tests share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import quick_lightning  # noqa: F401

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
atexit.register(gc.freeze)  # as commands do, see `two_tower.errors.exit_statuses`
gc.disable()  # until all is imported, of which nothing is garbage
#: Tests of what takes longest to compile after installation. They come first, so that of two processes each compiles
#: a part and finds the other's; training would make both compile the same at once.
COMPILING = ("test_tokenizer", "test_recurrent", "test_nearest", "test_bm25", "test_towers", "test_row_optimizers")
hypothesis.settings.register_profile("tests", max_examples=50, deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        from forked import start_server

        start_server()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import quick_hydra  # noqa: F401

    gc.freeze()  # to look through all that was imported takes .7 s each time
    gc.set_threshold(700, 10, 50)  # and through all that tests leave, .2 s
    gc.enable()
    items.sort(key=lambda item: COMPILING.index(item.path.stem) if item.path.stem in COMPILING else len(COMPILING))


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Processes are killed in tests, but the power is not cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def _as_in_a_new_process() -> Iterator[None]:
    """Notices are said once in one, ``console=`` is chosen for one, training makes denormal numbers zero in one."""
    from two_tower import cache, console

    cache._said.clear()
    yield
    console.set_mode("normal")
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


SYLLABLES = [consonant + vowel for consonant in "bdfklm" for vowel in "aeiou"]


def word(number: int) -> str:
    """A made-up word, the same for the same number."""
    base = len(SYLLABLES)
    return SYLLABLES[number % base] + SYLLABLES[number // base % base] + SYLLABLES[number // base**2 % base]


def write_collection(folder: Path, documents: int = 240, seed: int = 0, triples: bool = True) -> Path:
    """A BEIR folder of generated text: every query shares two rare words with its one relevant passage."""
    rng = np.random.default_rng(seed)
    (folder / "qrels").mkdir(parents=True)
    corpus, queries, qrels = [], [], {"train": [], "dev": [], "test": []}
    for d in range(documents):
        rare = [word(1000 + 3 * d + i) for i in range(3)]
        common = [word(i) for i in rng.integers(0, 60, 12)]
        text = " ".join(rng.permutation([*rare, *rare, *common]))
        corpus.append({"_id": f"d{d}", "title": rare[0], "text": text})
        queries.append({"_id": f"q{d}", "text": f"{rare[1]} {common[0]} {rare[2]}"})
        split = "dev" if d % 6 == 0 else "test" if d % 6 == 1 else "train"
        qrels[split].append((f"q{d}", f"d{d}", 1))
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    for split, rows in qrels.items():
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, r)) for r in rows)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if triples:
        rows = [(q, d, f"d{(int(d[1:]) + 7) % documents}") for q, d, _ in qrels["train"]]
        lines = ["query-id\tpositive-id\tnegative-id", *("\t".join(r) for r in rows)]
        (folder / "triples.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@functools.cache
def _chosen(program: str, choices: tuple[str, ...]) -> Any:  # noqa: ANN401
    from two_tower.config.compose import compose_raw

    return compose_raw(program, choices)


@functools.cache
def _composed(program: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from omegaconf import OmegaConf

    from two_tower import embed, train
    from two_tower.config.saved import groups

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    kinds = {OverrideType.CHANGE: False, OverrideType.ADD: True}
    values = [o for o in parsed if o.type in kinds and o.key_or_group not in groups() and "/" not in o.key_or_group]
    choices = tuple(str(o.input_line) for o in parsed if o not in values)
    config = copy.deepcopy(_chosen(program, choices))
    for override in values:
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=kinds[override.type])
    return {"train": train, "embed": embed}[program].resolve(config)


def composed(*overrides: str, program: str = "train") -> dict[str, Any]:
    """The checked configuration of these overrides; Hydra composes only choices, 0.3 s for each set of them."""
    return copy.deepcopy(_composed(program, overrides))


def configure(folder: Path, run: Path, *overrides: str) -> dict[str, Any]:
    """The configuration of a small run on the BEIR folder ``folder``: two epochs, 16 dimensions, on the CPU."""
    small = ["data.batch_size=32", "trainer=cpu", "trainer.max_epochs=2", "tower.dim=16"]
    config = composed("data=beir", "data.path=FOLDER", *small, "run_dir=RUN", *overrides)
    for place, key, stand_in, path in ((config["data"], "path", "FOLDER", folder), (config, "run_dir", "RUN", run)):
        if place.get(key) == stand_in:  # composing takes longer than a small training: it is done once
            place[key] = str(path)
    return config


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder of 240 generated passages with triples."""
    return write_collection(tmp_path_factory.mktemp("collection") / "beir")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prepared data goes into a folder of this test session; only the harvest of pydocs is shared."""
    os.environ["TWO_TOWER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def run_command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``train.py``, ``embed.py`` or ``two-tower`` to its end as a user would, from another folder."""
    program, *rest = map(str, arguments)
    start = ["-m", "two_tower"] if program == "two-tower" else [str(ROOT / program)]
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, *start, *rest]
    return subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, timeout=300)


@pytest.fixture(scope="session")
def transformer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with 2 random layers of 16 dimensions, and its tokenizer of letters and some words."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install -e '.[transformer]'")
    import tokenizers
    import torch

    folder = tmp_path_factory.mktemp("transformer")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "token", "##iser", *"abcdefghijklmnopqrstuvwxyz"]
    pieces += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    library.normalizer = tokenizers.normalizers.BertNormalizer()
    library.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    library.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    library.enable_padding()
    library.enable_truncation(7)
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 300}), encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=300, initializer_range=0.5,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def teacher_folder(transformer_folder: Path) -> Path:
    """A BERT of 16 dimensions, of which Sentence Transformers takes the mean."""
    pytest.importorskip("sentence_transformers", reason="needs pip install -e '.[teacher]'")
    return transformer_folder
