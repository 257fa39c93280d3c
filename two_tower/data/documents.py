"""`data=documents`: a folder of documents, cut into passages; questions are found or made, to train and judge with."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from two_tower.cache import entry, file_fingerprint, key_of, notice
from two_tower.console import counter
from two_tower.data import _pages
from two_tower.data._document_rows import NoText, Row, ask, distinct, document_rows, table_rows
from two_tower.data.base import CORPUS, FIELDS, QRELS, QUERIES, Source, check_dev_share, divided, percentiles
from two_tower.data.reading import table_files
from two_tower.data.reading.content import kind_of
from two_tower.errors import UserError, at_least

RULES = 1  # raise whenever the same files would give other passages or questions
ENOUGH = 100  # questions of the documents themselves with which validation needs no other
_ROWS = 4096
_OWN = ("environment.json", "config.yaml")  # a folder with these is a run
_NO_TEXT = ("node_modules", "__pycache__")
_COLUMNS = ("id", "title", "text", "own_title", "own_text", "query", "kind", "link", "fields")


class Found(NamedTuple):
    """What a folder holds."""

    files: Counter[str]  # that were read, by the ending of their name
    others: list[str]  # that were not, or hold no text
    queries: Counter[str]  # by kind: question, heading, sentence


class Documents(Source):
    """Text, Markdown, HTML, PDF and tables (CSV, TSV, JSON, Parquet) of a folder, or one such file.

    A passage is what stands under a heading, or a part of it of at most about ``passage_words`` words; in a table it is
    a row. Its id is the file's path with the heading's anchor, so that it stays when other parts change.

    Queries are questions that the documents answer: headings with a question mark, questions beside their answers in a
    table. Other passages get their heading, where no other has the same, or their first sentence (as in the inverse
    cloze task of Lee et al., 2019, https://arxiv.org/abs/1906.00300). What became a query is held back from its passage
    in training and validation (`corpus`), not in the index (`search_corpus`). ``dev`` is a tenth, `JUDGED_ENOUGH` at
    least: of the questions alone where there are `ENOUGH`.
    """

    def __init__(
        self, path: Path | str, passage_words: int = 150, base_url: str | None = None, dev_share: float | None = None,
        dev_seed: int = 0, name: str | None = None,
    ) -> None:  # fmt: skip
        at_least(20, passage_words=passage_words)
        check_dev_share(dev_share)
        self.path = Path(os.path.abspath(Path(path).expanduser()))
        super().__init__(name or self.path.stem)
        if not self.path.exists():
            raise UserError(f"{path} does not exist: data.path must be a folder of documents, or one document")
        self.root = self.path if self.path.is_dir() else self.path.parent
        self.base_url, self.passage_words = base_url, passage_words
        self.dev_share, self.dev_seed = dev_share, dev_seed

    def corpus(self) -> Iterator[pa.RecordBatch]:
        """Passages without what became their queries."""
        table = self._rows.select(["id", "own_title", "own_text"]).rename_columns(CORPUS.names)
        yield from table.combine_chunks().to_batches(_ROWS)

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        """Whole passages; of their fields ``url`` leads to their place, ``document`` is their file."""
        fields = pa.array([self._fields(*pair) for pair in self._values("link", "fields")], pa.string())
        table = self._rows.select(CORPUS.names).append_column(FIELDS, fields)
        yield from table.combine_chunks().to_batches(_ROWS)

    def splits(self) -> tuple[str, ...]:
        return ("train", "dev")

    def queries(self, split: str) -> pa.Table:
        texts = list(self._split(split))
        return pa.table([[_query_id(text) for text in texts], texts], QUERIES)

    def qrels(self, split: str) -> pa.Table:
        pairs = [(_query_id(text), name) for text, passages in self._split(split).items() for name in passages]
        queries, passages = zip(*pairs, strict=True)
        return pa.table([queries, passages, np.ones(len(pairs), np.int32)], QRELS)

    def fingerprint(self) -> str:
        files = [f"{self._relative(path)} {file_fingerprint(path)}" for path in self._files]
        return self._key(RULES, self.passage_words, self.dev_share, self.dev_seed, *files)

    def estimated_size(self) -> int:
        return len(self._rows)

    def some_texts(self) -> list[str]:
        """A thousand passages at most, spread evenly."""
        return self._rows["text"].to_pylist()[:: max(1, len(self._rows) // 1000)]

    def found(self) -> Found:
        """What was read, and what queries it gave."""
        read = {unquote(link.partition("#")[0]) for link in self._rows["link"].to_pylist()}
        files = [(path, self._relative(path)) for path in self._all_files]
        seen = Counter(kind_of(path) for path, name in files if name in read)
        return Found(seen, [name for _, name in files if name not in read], Counter(self._kinds.values()))

    @cached_property
    def _all_files(self) -> list[Path]:
        """All files but hidden ones and those of runs, in the order of their names."""
        if self.path.is_file():
            return [self.path]
        files = []
        for folder, subfolders, its in os.walk(self.path):
            if all(name in its for name in _OWN):
                subfolders.clear()
                continue
            subfolders[:] = sorted(name for name in subfolders if name[0] != "." and name not in _NO_TEXT)
            files += [Path(folder, name) for name in sorted(its) if name[0] != "."]
        return files

    @cached_property
    def _files(self) -> list[Path]:
        found = [path for path in self._all_files if kind_of(path) in (*_pages.KINDS, *table_files.KINDS)]
        if not found:
            kinds = ", ".join((*_pages.KINDS, *table_files.KINDS))
            raise UserError(f"{self.path} holds no document of a known kind: {kinds}")
        return found

    @cached_property
    def _rows(self) -> pa.Table:
        table = pq.read_table(entry("documents", self.fingerprint(), self._write) / "passages.parquet")
        if not len(table):
            raise UserError(f"{self.path} holds no text in its {len(self._files)} files")
        return table

    def _write(self, folder: Path) -> None:
        rows, problems = list[Row](), list[str]()
        with counter(f"Reading {self.name}", "files", len(self._files)) as progress:
            for path in self._files:
                try:
                    rows += self._read(path)
                except NoText:
                    if path == self.path:
                        raise
                except UserError as error:
                    problems.append(str(error))
                progress(1)
        if problems:
            some = "; ".join(problems[:3]) + ("; …" if len(problems) > 3 else "")
            text = f"{self.path}: {len(problems)} of {len(self._files)} files were not read: {some}"
            if not rows:
                raise UserError(text)
            notice(text)
        rows = ask(distinct(rows))
        columns = [[row.get(name, "") for row in rows] for name in _COLUMNS]
        pq.write_table(pa.table([pa.array(c, pa.string()) for c in columns], _COLUMNS), folder / "passages.parquet")

    def _read(self, path: Path) -> list[Row]:
        if kind_of(path) in table_files.KINDS:
            return list(table_rows(path, self._relative(path)))
        return list(document_rows(path, self._relative(path), self.passage_words))

    def _split(self, split: str) -> dict[str, list[str]]:
        """The queries of a split, and the ids of the passages that answer each."""
        if split not in self.splits():
            raise self._no_split(split)
        return {text: ids for text, ids in self._answers.items() if (text in self._dev) == (split == "dev")}

    @cached_property
    def _answers(self) -> dict[str, list[str]]:
        answers = defaultdict[str, list[str]](list)
        for name, query in self._values("id", "query"):
            if query:
                answers[query].append(name)
        if len(answers) < 2:
            count = f"{len(self._rows)} passages in {len(self._files)} files give {len(answers)} queries"
            raise UserError(
                f"{self.path} holds too little text: {count}, training and validation need one each at least"
            )
        return answers

    @cached_property
    def _kinds(self) -> dict[str, str]:
        kinds = {query: kind for query, kind in self._values("query", "kind")}
        return {text: kinds[text] for text in self._answers}

    @cached_property
    def _dev(self) -> set[str]:
        asked = [text for text, kind in self._kinds.items() if kind == "question"]
        among = asked if len(asked) >= ENOUGH else list(self._answers)
        chosen = divided(percentiles(among, self.dev_seed), self.dev_share)
        return {text for text, own in zip(among, chosen, strict=True) if own}

    def _fields(self, link: str, fields: str) -> str:
        start = f"{self.root.as_uri()}/" if self.base_url is None else f"{self.base_url.rstrip('/')}/"
        own = {"url": start + link, "document": unquote(link.partition("#")[0])}
        return json.dumps(own | (json.loads(fields) if fields else {}), ensure_ascii=False)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _values(self, *columns: str) -> Iterator[tuple[str, ...]]:
        return zip(*(self._rows[name].to_pylist() for name in columns), strict=True)


def _query_id(text: str) -> str:
    return key_of(text)[:16]
