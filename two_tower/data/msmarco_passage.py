"""`data=msmarco_passage`: the official files of the MS MARCO passage ranking task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from two_tower.cache import file_fingerprint
from two_tower.data.base import CORPUS, MS_MARCO, QUERIES, SPLITS
from two_tower.data.reading.archive import Folder, Member
from two_tower.data.reading.content import File, check_encoding
from two_tower.data.reading.delimited import TsvFile
from two_tower.data.reading.download import Download
from two_tower.data.reading.download import download as fetch
from two_tower.data.reading.qrels import qrels_rows
from two_tower.data.reading.rows import Rows
from two_tower.data.reading.table_files import RoleTables
from two_tower.data.reading.tables import TableSource
from two_tower.data.reading.triples import TriplesFile
from two_tower.errors import UserError, nearest, one_of

_QUERY_FILES = {"train": "queries.train.tsv", "dev": "queries.dev.small.tsv", "test": "msmarco-test2019-queries.tsv"}
_QRELS_FILES = {"train": "qrels.train.tsv", "dev": "qrels.dev.small.tsv", "test": "2019qrels-pass.txt"}
_RELEVANT_GRADES = {"test": 2}
_ARCHIVES = ("queries.tar.gz", "collectionandqueries.tar.gz")
_TRAINING, _VALIDATION = ("queries.train", "qrels.train"), ("queries.dev", "qrels.dev")


class MsMarcoPassage(TableSource):
    """``collection.tsv``, ``queries.*.tsv``, ``qrels.*.tsv`` and triples of ids or of texts.

    The files have no header and no quoting (a quote character is text). Each may lie in the folder as it is, as
    ``NAME.gz``, or in a ``.tar.gz`` that is read without unpacking. Passages have no title. Grades are kept as they
    are (0 to 3 at TREC). Ids in triples are not looked up here. With triples of texts, queries and judgements of
    ``train`` are not needed.
    """

    licence = MS_MARCO

    def __init__(
        self, path: Path | str, corpus: str = "collection.tsv", queries: Mapping[str, str | None] = _QUERY_FILES,
        qrels: Mapping[str, str | None] = _QRELS_FILES, relevant_grades: Mapping[str, int] = _RELEVANT_GRADES,
        triples: str | None = None, archives: Sequence[str] = _ARCHIVES, download: bool = False,
        downloads: Mapping[str, Mapping[str, Any]] | None = None, headers: Mapping[str, str] | None = None,
        encoding: str | None = None, max_bad_rows: float = 0.001, name: str | None = None,
    ) -> None:  # fmt: skip
        check_encoding(encoding)
        self.path, self.encoding = Path(path).expanduser(), encoding
        super().__init__(name or self.path.resolve().name, max_bad_rows)
        self.relevant_grades = dict(relevant_grades)
        for key, named in (("queries", queries), ("qrels", qrels), ("relevant_grades", relevant_grades)):
            for split in named:
                if split not in SPLITS:
                    raise ValueError(f"{key}.{split} is no split; {one_of(split, SPLITS)}")
        self.downloads = {file: Download.from_config(file, entry) for file, entry in (downloads or {}).items()}
        self._folder = Folder(self.path, archives)
        self._files = {"corpus": corpus, "triples": triples}
        for split in SPLITS:
            self._files |= {f"queries.{split}": queries.get(split), f"qrels.{split}": qrels.get(split)}
        if download:
            self._download(headers or {})
        if not self.path.is_dir():
            raise UserError(f"{path} is no folder: data.path must hold {corpus}, or set data.download=true")
        self._file("corpus" if triples is None else "triples")

    def splits(self) -> tuple[str, ...]:
        found = tuple(s for s in SPLITS if self._find(f"qrels.{s}") and self._find(f"queries.{s}"))
        if not found:
            self._file("corpus")
        return found

    def relevant_grade(self, split: str) -> int:
        return self.relevant_grades.get(split, 1)

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """The rows of a file of ids, with margins where it has scores."""
        return self._read_triples(texts=False)

    def text_triplets(self) -> Iterator[pa.RecordBatch] | None:
        return self._read_triples(texts=True)

    def fingerprint(self) -> str:
        found = ((role, file) for role in self._files if (file := self._find(role)) is not None)
        whole = ((f"{role} {file.name}", file.archive if isinstance(file, Member) else file) for role, file in found)
        return self._key(self.encoding, *(f"{name} {file_fingerprint(path)}" for name, path in whole))

    def _passage_rows(self, fields: bool = False) -> list[Rows]:
        return self._texts("corpus", CORPUS.names)

    def _query_rows(self, split: str) -> list[Rows]:
        return self._texts(f"queries.{split}", QUERIES.names)

    def _texts(self, role: str, names: Sequence[str]) -> list[Rows]:
        file = TsvFile(self._file(role), self.encoding, QUERIES.names)
        return RoleTables([file], dict(zip(QUERIES.names, QUERIES.names, strict=True))).rows(names, [["id"], ["text"]])

    def _judgement_rows(self, split: str) -> Rows:
        if split not in SPLITS:
            raise self._no_split(split)
        return qrels_rows(self._file(f"qrels.{split}"), self.encoding)

    def _find(self, role: str) -> File | None:
        name = self._files[role]
        return None if name is None else self._folder.find(name)

    def _file(self, role: str) -> File:
        file = self._find(role)
        if file is not None:
            return file
        name = self._files[role]
        if name is None:
            raise UserError(f"data.{role} is null, so {self.name} has none: give the name of a file in {self.path}")
        if role == "corpus":
            self._check_any()
        raise UserError(f"{self.path} holds no {name} ({self._remedy(role, name)})")

    def _check_any(self) -> None:
        """Refuse a folder that holds triples at most, with all that is missing."""
        training = () if self._triples and self._triples.has_texts else _TRAINING
        names = [name for role in ("corpus", *training, *_VALIDATION) if (name := self._files[role]) is not None]
        if not any(self._folder.find(name) for name in names):
            raise UserError(
                f"{self.path} holds none of {', '.join(names)}: whatever triples there are, the vocabulary is made of "
                "the passages and validation ranks them, so put these files there too, or set data.download=true"
            )

    def _remedy(self, role: str, name: str) -> str:
        if self._providers(name):
            return "data.download=true fetches it"
        names = self._folder.names()
        guess = nearest(name, [n for n in names if n.split(".")[0] == name.split(".")[0]]) or nearest(name, names)
        if guess is not None:
            return f"did you mean data.{role}={guess}?"
        return f"neither as it is, nor {name}.gz, nor in {', '.join(self._folder.archives) or 'an archive'}"

    def _download(self, headers: Mapping[str, str]) -> None:
        for role, name in self._files.items():
            if name is None or self._find(role) is not None:
                continue
            if not (able := self._providers(name)):
                raise UserError(
                    f"data.downloads has no address for {name}, and it is not in {self.path}: "
                    f"put it there, add its address, or set data.{role}=null"
                )
            own, entry = min(able.items(), key=lambda pair: pair[1].size or 0)
            fetch(entry.url, self.path / own, entry.size, entry.checksum, headers)

    def _providers(self, name: str) -> dict[str, Download]:
        return {own: entry for own, entry in self.downloads.items() if entry.provides(own, name)}

    @cached_property
    def _triples(self) -> TriplesFile | None:
        return None if self._files["triples"] is None else TriplesFile(self._file("triples"), self.encoding)

    def _read_triples(self, texts: bool) -> Iterator[pa.RecordBatch] | None:
        if self._triples is None or self._triples.has_texts != texts:
            return None
        return self._batches(Rows(self._triples.path, self._triples.read))
