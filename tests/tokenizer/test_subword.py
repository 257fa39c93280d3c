"""A transformer's own tokenizer: the library's ids, this project's limits."""

import json
import shutil
from pathlib import Path

import pytest
import tokenizers

from two_tower.errors import UserError
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.subword import SubwordTokenizer

TEXTS = ["Tokeniser", "a bc", "", "abc " * 50]


@pytest.fixture
def folder(tmp_path: Path, transformer_folder: Path) -> Path:
    """A tokenizer that pads, and cuts texts off at 7 tokens."""
    shutil.copy(transformer_folder / "tokenizer.json", tmp_path)
    return tmp_path


def test_ids_are_the_librarys_with_special_tokens_and_no_padding(folder: Path, tmp_path: Path) -> None:
    ours = SubwordTokenizer(folder, query_tokens=4, document_tokens=9).train(pytest.fail("read") for _ in "a")
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_padding()
    for limit, encoded in ((4, ours.encode_queries(TEXTS)), (9, ours.encode_documents(TEXTS))):
        library.enable_truncation(limit)
        assert encoded.to_lists() == [library.encode(text).ids for text in TEXTS]
    assert ours.encode_queries(["tokeniser"]).to_lists() == [[2, 4, 5, 3]]
    ours.save(tmp_path / "saved.json")
    again = Tokenizer.load(tmp_path / "saved.json")
    assert (again.fingerprint, again.query_tokens, again.document_tokens) == (ours.fingerprint, 4, 9)


def test_the_digest_follows_the_file(folder: Path) -> None:
    before = SubwordTokenizer(folder).digest
    assert SubwordTokenizer(folder).digest == before
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["model"]["vocab"]["new"] = 60
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    assert SubwordTokenizer(folder).digest != before


def test_a_mistake_is_one_sentence(folder: Path) -> None:
    def refused(message: str, path: Path | None = folder, error: type[Exception] = ValueError, **options: int) -> None:
        with pytest.raises(error, match=message):
            SubwordTokenizer(path, **options)

    refused(r"^path=\S*gone is not a folder", folder / "gone")
    refused(r"^path is not set", None)
    refused(r"^query_tokens=0 must be at least 1", query_tokens=0)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 128}')
    refused(r"^document_tokens=256 must be at most 128")
    (folder / "tokenizer_config.json").write_text("[]")
    refused(r"tokenizer_config\.json holds no JSON object", error=UserError)
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.json").unlink()
    refused(r"tokenizer\.json cannot be read", error=UserError)
