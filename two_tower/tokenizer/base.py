"""Text → token ids, as a `tokenizer.json` of Hugging Face `tokenizers` defines them, without padding.

A file with this project's rule of what a word is (`Rule`) is encoded by compiled loops, straight from Arrow
buffers; any other file by the library. Either way the ids are the library's, at any number of threads.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tokenizers
import torch

from two_tower.errors import UserError
from two_tower.files import write_text
from two_tower.ragged import Ragged
from two_tower.tokenizer import _folding as folding
from two_tower.tokenizer import _hash_table as hash_table
from two_tower.tokenizer._languages import Stemmer, Texts
from two_tower.tokenizer._rule import CAMEL, Rule, library, split

__all__ = ["CAMEL", "Rule", "Stemmer", "Texts", "Tokenizer", "numbered_parts", "numbered_words", "refold"]

Encoded: TypeAlias = tuple[np.ndarray, np.ndarray]  # ids (int32) and offsets (int64) of a chunk of texts

# Texts that a thread takes at once: their folded bytes (about 400 KB) stay in the core's own cache.
CHUNK = 1024


def buffers(texts: Texts) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The texts in chunks as the compiled loops read them, without copying Arrow's bytes; a null is an empty text.

    Yields UTF-8 bytes (uint8) and (B + 1,) int64, where each text starts in them; both read-only.
    """
    for array in _arrays(texts):
        # Widens the offsets of a string array and shares its bytes; copies other kinds.
        array = array.cast(pa.large_string())
        if array.null_count:
            array = pc.fill_null(array, "")
        _, starts, text = array.buffers()
        data = np.frombuffer(text or b"", np.uint8)
        all_starts = np.frombuffer(starts or bytes(8), np.int64)[array.offset : array.offset + len(array) + 1]
        data.flags.writeable = all_starts.flags.writeable = False  # one type, so each kernel compiles once
        for first in range(0, len(array), CHUNK):
            yield data, all_starts[first : first + CHUNK + 1]


def _arrays(texts: Texts) -> list[pa.Array]:
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of strings, not one string")
    if isinstance(texts, pa.ChunkedArray):
        return texts.chunks
    if isinstance(texts, pa.Array):
        return [texts]
    try:
        return [pa.array(list(texts), pa.large_string())]
    except UnicodeEncodeError:  # half of a surrogate pair, from a broken JSON escape: becomes a question mark
        return [pa.array([t if t is None else t.encode(errors="replace").decode() for t in texts])]


def _joined(parts: list[Encoded]) -> Ragged:
    """The chunks as one batch. NumPy copies in this thread: torch.cat waits for busy cores (400 ms once)."""
    ends = np.cumsum([0, *(len(ids) for ids, _ in parts)])
    offsets = [end + offsets[1:] for end, (_, offsets) in zip(ends, parts, strict=False)]
    ids = np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in parts)])
    return Ragged.from_numpy(ids, np.concatenate([np.zeros(1, np.int64), *offsets]))


def count_words(rule: Rule, texts: Iterable[Texts]) -> hash_table.HashTable:
    """The words of batches of texts, read once, one after another: memory holds one batch and the distinct words."""
    fold, counted = folding.shared(rule), hash_table.empty()
    for batch in texts:
        for text, starts in buffers(batch):
            counted = hash_table.count(fold(text, starts)[0], counted)
    return counted


def numbered_parts(rule: Rule, texts: Texts) -> tuple[list[Ragged], dict[str, int]]:
    """The words of texts, in parts, numbered by their first occurrence; and each word with how often it occurs."""
    fold, table, parts = folding.shared(rule), hash_table.empty(), list[Ragged]()
    for text, starts in buffers(texts):
        folded, folded_starts = fold(text, starts)
        table = hash_table.count(folded, table)
        parts.append(Ragged.from_numpy(*hash_table.look_up(folded, folded_starts, table, -1, np.iinfo(np.int64).max)))
    return parts, hash_table.spelled(table)


def numbered_words(rule: Rule, texts: Texts) -> tuple[Ragged, dict[str, int]]:
    """The same as one batch."""
    parts, counts = numbered_parts(rule, texts)
    return _joined([(part.ids.numpy(), part.offsets.numpy()) for part in parts]), counts


def refold(rule: Rule, words: list[str]) -> list[str]:
    """Words of a rule that keeps accents as this ``rule`` spells them."""
    if not rule.strip_accents:
        return words
    fold, result = folding.shared(rule), list[str]()
    for text, starts in buffers(words):
        folded, folded_starts = fold(text, starts, cut=False)
        data = folded.tobytes()
        result += [data[a:b].replace(b"\0", b"").decode() for a, b in itertools.pairwise(folded_starts.tolist())]
    return result


def truncation(query_tokens: int, document_tokens: int) -> dict[str, Any]:
    """The section ``truncation`` of a `tokenizer.json`: maximum number of tokens of a query and of a passage.

    Here the library ignores keys that it does not know, such as ``query_tokens``, and a rule's ``languages``.
    """
    return {
        "direction": "Right", "max_length": document_tokens, "query_tokens": query_tokens,
        "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip


def _has_only_words(definition: Mapping[str, Any]) -> bool:
    """Whether a parsed `tokenizer.json` has a model, and nothing besides its rule, that the compiled loops follow."""
    model = definition.get("model")
    return (
        isinstance(model, dict)
        and model.get("type") == "WordLevel"
        and not definition.get("added_tokens")
        and definition.get("post_processor") is None
        and _is_dense(model.get("vocab"))
        and model.get("unk_token") in model["vocab"]
    )


def _is_dense(vocabulary: Any) -> bool:  # noqa: ANN401
    """Whether the ids are 0, 1, 2 … in order and every word can stand between 0 bytes."""
    if not isinstance(vocabulary, dict) or list(vocabulary.values()) != list(range(len(vocabulary))):
        return False
    return "" not in vocabulary and "\0" not in "".join(vocabulary)


class Tokenizer:
    """Encodes texts as a parsed `tokenizer.json` (``definition``) says."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self._definition = definition
        # What a word is, where the tokens are whole words by this project's rule, else None.
        self.rule = Rule.of(definition) if _has_only_words(definition) else None
        try:
            # The compiled loops hold the vocabulary of words themselves.
            text = None if self.rule else json.dumps(definition)
            self._library = tokenizers.Tokenizer.from_str(text) if text else library(definition)
        except Exception as error:  # the library raises nothing more specific
            raise UserError(f"`tokenizers` cannot read this tokenizer.json: {error}.") from error
        limits = definition.get("truncation") or {}
        # The maximum number of tokens of a passage and of a query.
        self.document_tokens: int = limits.get("max_length", 256)
        self.query_tokens: int = limits.get("query_tokens", min(64, self.document_tokens))
        if not (isinstance(self.query_tokens, int) and min(self.query_tokens, self.document_tokens) > 0):
            raise UserError("max_length and query_tokens of the section truncation must be whole numbers above 0.")
        self.unknown_id = self._unknown_id()  # -1 where the file has no word for the words that it lacks
        self._library.no_truncation()
        self._library.no_padding()
        self._libraries: dict[int, tokenizers.Tokenizer] = {}

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a `tokenizer.json`."""
        try:
            definition = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path} does not exist: train a tokenizer first, or correct the path.") from None
        except (ValueError, OSError) as error:
            raise UserError(f"{path} is not a tokenizer.json: {error}.") from error
        if not isinstance(definition, dict):
            raise UserError(f"{path} is not a tokenizer.json: it holds no JSON object.")
        try:
            return cls(definition)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def limited(self, max_tokens: int) -> dict[str, Any]:
        """The definition of a tokenizer that keeps the first ``max_tokens`` tokens of any text."""
        limits = {**(self._definition.get("truncation") or {}), **truncation(max_tokens, max_tokens)}
        return {**self._definition, "truncation": limits}

    def frequencies(self, texts: Iterable[Texts]) -> dict[str, tuple[int, int]]:
        """How often each word of batches of texts occurs, known or not, and in how many texts; only with a `rule`."""
        assert self.rule is not None
        found = dict[str, tuple[int, int]]()
        for batch in texts:
            tokens, occurrences = numbered_words(self.rule, batch)
            texts_with = tokens.frequencies(len(occurrences)).tolist()
            for (word, count), holding in zip(occurrences.items(), texts_with, strict=True):
                before = found.get(word, (0, 0))
                found[word] = before[0] + count, before[1] + holding
        return found

    def spelled(self, words: Sequence[str]) -> list[str]:
        """Those of some words that are not known, as `frequencies` spells them; only with a `rule`."""
        known = set(self.vocabulary)
        return [word for word in self.frequencies([words]) if word not in known]

    def extended(self, words: Sequence[str]) -> Tokenizer:
        """The same tokenizer with more words, spelled as `frequencies` does, none of them known; only with a `rule`."""
        model, size = self._definition["model"], len(self)
        more = {word: size + i for i, word in enumerate(words)}
        return Tokenizer({**self._definition, "model": {**model, "vocab": {**model["vocab"], **more}}})

    def save(self, path: Path) -> None:
        """Write the `tokenizer.json`, atomically; `tokenizers.Tokenizer.from_file` reads it too."""
        write_text(Path(path), json.dumps(self._definition, ensure_ascii=False))

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[Mapping[str, Any]]]:
        return Tokenizer, (self._definition,)

    def __len__(self) -> int:
        return len(self.vocabulary)

    @cached_property
    def vocabulary(self) -> list[str]:
        """All words; index = id (an empty string where a foreign file leaves an id out)."""
        ids = self._definition["model"]["vocab"] if self.rule else self._library.get_vocab()
        words = [""] * (max(ids.values(), default=-1) + 1)
        for word, i in ids.items():
            words[i] = word
        return words

    @property
    def spelling(self) -> list[str]:
        """The vocabulary with an empty string for the unknown word, which is none."""
        return [word if i != self.unknown_id else "" for i, word in enumerate(self.vocabulary)]

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any rule, word or limit, and with nothing else."""
        definition: dict[str, Any] = dict(self._definition)
        if self.rule:  # the ids are 0, 1, 2 …: joining the words is quick, sorting a mapping of them is not
            words = "\0".join(self.vocabulary)
            definition["model"] = {**definition["model"], "vocab": hashlib.sha256(words.encode()).hexdigest()}
        canonical = json.dumps(definition, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def encode(self, texts: Texts, max_tokens: int | None = None, threads: int | None = None) -> Ragged:
        """The tokens of texts, the first ``max_tokens`` of each; ``threads`` (by default torch's) change nothing."""
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}, must be at least 1")
        run = self._by_kernel(max_tokens) if self.rule else self._by_library(max_tokens)
        threads = threads or torch.get_num_threads()
        chunks = list(buffers(texts))
        # Two chunks (2 ms each) are not worth starting threads for; the library has threads of its own.
        if threads == 1 or len(chunks) <= 2 or not self.rule:
            return _joined([run(*chunk) for chunk in chunks])
        with ThreadPoolExecutor(threads) as pool:
            return _joined(list(pool.map(run, *zip(*chunks, strict=True))))

    def encode_queries(self, texts: Texts, threads: int | None = None) -> Ragged:
        return self.encode(texts, self.query_tokens, threads)

    def encode_documents(self, texts: Texts, threads: int | None = None) -> Ragged:
        return self.encode(texts, self.document_tokens, threads)

    def known(self, tokens: Ragged) -> np.ndarray:
        """(B,) bool: whether a text has a word of the vocabulary. Without one, its vector means nothing."""
        return tokens.any(tokens.ids.numpy() != self.unknown_id)

    def words(self, text: str) -> list[str]:
        """The words of a text in order, as the vocabulary spells them, known or not."""
        return [word for word, *_ in split(self._library, text)]

    def _unknown_id(self) -> int:
        model = self._definition["model"]
        if self.rule:
            return model["vocab"][model["unk_token"]]
        unknown = model.get("unk_id")  # Unigram gives the id, the others give the word
        if unknown is None and model.get("unk_token") is not None:
            unknown = self._library.token_to_id(model["unk_token"])
        return -1 if unknown is None else unknown

    @cached_property
    def _tables(self) -> tuple[folding.Folding, hash_table.HashTable]:
        """The two tables of the fast path. Counting the vocabulary once gives each word its id as number."""
        words = np.frombuffer(bytearray("\0".join([*self.vocabulary, ""]).encode()), np.uint8)
        return folding.shared(self.rule), hash_table.count(words, hash_table.empty())

    def _by_kernel(self, max_tokens: int | None) -> Callable[[np.ndarray, np.ndarray], Encoded]:
        fold, table = self._tables
        limit = np.iinfo(np.int64).max if max_tokens is None else max_tokens
        return lambda text, starts: hash_table.look_up(*fold(text, starts), table, self.unknown_id, limit)

    def _by_library(self, max_tokens: int | None) -> Callable[[np.ndarray, np.ndarray], Encoded]:
        library = self._library
        if max_tokens is not None:
            if max_tokens not in self._libraries:
                # A copy for each limit: a switch on one object would reach other threads.
                self._libraries[max_tokens] = tokenizers.Tokenizer.from_str(library.to_str())
                self._libraries[max_tokens].enable_truncation(max_tokens)
            library = self._libraries[max_tokens]

        def run(text: np.ndarray, starts: np.ndarray) -> Encoded:
            strings = [bytes(text[a:b]).decode() for a, b in itertools.pairwise(starts)]
            ids = [np.asarray(encoding.ids, np.int32) for encoding in library.encode_batch_fast(strings)]
            offsets = np.cumsum([0, *(len(i) for i in ids)], dtype=np.int64)
            return np.concatenate([np.zeros(0, np.int32), *ids]), offsets

        return run
