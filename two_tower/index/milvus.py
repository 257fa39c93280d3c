"""Milvus: a vector database, embedded (Milvus Lite) in the folder of the index, or a server or cluster."""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import xxhash

from two_tower.console import Advance
from two_tower.errors import UserError, at_least
from two_tower.files import atomic_path, read_json, write_json
from two_tower.index._copies import hash_vectors
from two_tower.index._milvus import Connection
from two_tower.index.base import VectorIndex
from two_tower.index.faiss import MIN_PER_LIST
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

Kind: TypeAlias = Literal["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "SCANN", "AUTOINDEX"]
Consistency: TypeAlias = Literal["Strong", "Bounded", "Session", "Eventually"]

IDENTITY, KEYS, LITE = "milvus.json", "milvus.npy", "milvus.db"
OWNER, MADE = "two_tower.owner", "two_tower.made"  # properties of a collection
MOST_CANDIDATES, MOST_LISTS = 32_768, 65_536  # of a search
MOST = 16_384  # that a server gives at once, hits or entities
QUERIES = 100  # sent together
NOT_FOUND, NOT_LOADED = 100, 101  # what a server says of a collection
NUMBERS = 2**26  # that Milvus Lite may hold at once: for euclidean distances it makes all differences
VALUES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192)


class MilvusIndex(VectorIndex):
    """A collection whose keys are hashes of its vectors, and beside it the keys in the order of the rows.

    So a build sends the vectors that are missing and deletes those left over, after a change of the passages as after
    an interruption. It never writes where others search. Embedded, it changes a copy, in the new folder. On a server
    two collections take turns, and a search asks for one by an alias that names its vectors: as long as they are
    others, there is none.
    """

    file, carried = KEYS, (IDENTITY, LITE)

    def __init__(
        self, uri: str | None = None, token: str | None = None, token_variable: str = "MILVUS_TOKEN",
        database: str = "default", collection: str = "passages", kind: Kind = "FLAT",
        m: int = 32, ef_construction: int = 200, ef_search: int = 64, nlist: int | None = None, nprobe: int = 16,
        pq_m: int | None = None, consistency: Consistency = "Bounded", batch: int = 2000, timeout: float = 10.0,
        retries: int = 3,
    ) -> None:  # fmt: skip
        try:
            import pymilvus  # noqa: F401

            if uri is None:
                import milvus_lite  # noqa: F401
        except ModuleNotFoundError as error:
            raise UserError('index=milvus needs its package: pip install -e ".[milvus]"') from error
        at_least(1, ef_construction=ef_construction, ef_search=ef_search, nlist=nlist, nprobe=nprobe, pq_m=pq_m)
        at_least(1, batch=batch, timeout=timeout)
        at_least(2, m=m)
        at_least(0, retries=retries)
        if "@" in (uri or ""):
            raise ValueError(f"uri holds a password: put USER:PASSWORD into the variable {token_variable} instead")
        self.uri, self.collection, self.kind, self.structure = uri, collection, kind, f"Milvus {kind}"
        self.m, self.ef_construction, self.ef_search = m, ef_construction, ef_search
        self.nlist, self.nprobe, self.pq_m = nlist, nprobe, pq_m
        self.exact = kind == "FLAT"
        self.search_param = {"FLAT": "", "AUTOINDEX": "", "HNSW": "ef_search"}.get(kind, "nprobe")
        self.search_values = VALUES[4:]
        self._consistency, self._batch, self._timeout = consistency, batch, None if uri is None else timeout
        self._server: dict[str, Any] = {"variable": token_variable, "database": database, "retries": retries}
        self._server |= {"token": token or os.environ.get(token_variable, ""), "timeout": timeout}
        self._milvus: Connection
        self._similarity = Similarity()

    def _connect(self, folder: Path, shared: bool) -> None:
        if self.uri is None:
            self._milvus = Connection.embedded(folder / LITE, shared)
        else:
            self._milvus = Connection(f"The Milvus server at {self.uri}", self.uri, **self._server)

    def _take(self, name: str, keys: np.ndarray) -> None:
        """The keys (N,) int64 of the rows, and the collection that must have them and no others under this alias."""
        self._name, self._keys, self._order = name, keys, np.argsort(keys)
        self._alias = f"{name}_state_{xxhash.xxh3_128_hexdigest(keys[self._order].tobytes())}"

    def build(self, store: VectorStore, progress: Advance | None = None) -> None:
        self._similarity = Similarity(store.manifest.similarity)
        before = {"owner": uuid.uuid4().hex, **(read_json(store.path / IDENTITY) or {})}
        write_json(store.path / IDENTITY, before)  # first: what an interrupted build leaves behind is known by it
        turn = self.uri is not None and before.get("collection") == self.collection
        self._take(f"{self.collection}_2" if turn else self.collection, hash_vectors(store).view(np.int64))
        if lists := self._params(store.manifest.dim).get("nlist"):
            self.search_values = (*(value for value in VALUES if value < lists), lists)
        self._connect(store.path, shared=False)
        self._prepare(before["owner"], store.manifest.dim)
        self._fill(store, progress)
        self._milvus.ask(lambda client: client.flush(self._name))
        self._index(store.manifest.dim)
        self._milvus.ask(self._call)

    def _prepare(self, owner: str, dim: int) -> None:
        """See that there is a collection of this index, loaded, without an alias."""
        settings = [self.kind, self.m, self.ef_construction, self.nlist, self.pq_m, self._metric, dim]
        wanted = {OWNER: owner, MADE: json.dumps(settings)}

        def create(client: Any) -> None:  # noqa: ANN401
            from pymilvus import DataType

            if not client.has_collection(self._name):
                schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
                schema.add_field("id", DataType.INT64, is_primary=True)
                schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
                client.create_collection(self._name, schema=schema, properties=wanted, consistency_level="Strong")

        for _ in range(2):  # in case that it must be made anew
            self._milvus.ask(create)
            found = self._milvus.ask(lambda client: client.describe_collection(self._name)["properties"])
            if found.get(OWNER) != owner:
                taken = f"{self._milvus.place} has a collection {self._name} that is not of this index"
                raise UserError(f"{taken}: choose another index.collection=NAME.")
            self._milvus.ask(self._uncall)
            if found[MADE] == wanted[MADE]:
                break
            self._milvus.ask(lambda client: client.drop_collection(self._name))
        self._index(dim)
        self._milvus.ask(lambda client: client.load_collection(self._name))

    def _uncall(self, client: Any) -> None:  # noqa: ANN401
        for alias in client.list_aliases(self._name)["aliases"]:
            if alias.startswith(f"{self._name}_state_"):
                client.drop_alias(alias)

    def _call(self, client: Any) -> None:  # noqa: ANN401
        if self._alias not in client.list_aliases(self._name)["aliases"]:
            client.create_alias(self._name, self._alias)

    @property
    def _metric(self) -> str:
        return "L2" if self._similarity.metric == "l2" else "IP"

    def _params(self, dim: int) -> dict[str, int]:
        """Of the index, as Milvus calls them."""
        if self.kind == "HNSW":
            return {"M": self.m, "efConstruction": self.ef_construction}
        if self.search_param != "nprobe":
            return {}
        rows = len(self._keys)
        lists = {"nlist": self.nlist or max(1, min(round(4 * math.sqrt(rows)), rows // MIN_PER_LIST))}
        pq_m = self.pq_m or max(m for m in range(1, max(1, dim // 4) + 1) if dim % m == 0)
        return {**lists, "m": pq_m, "nbits": 8} if self.kind == "IVF_PQ" else lists

    def _index(self, dim: int) -> None:
        """Have the vectors indexed, and wait until all of them are."""

        def index(client: Any) -> None:  # noqa: ANN401
            if not client.list_indexes(self._name):
                wanted = client.prepare_index_params()
                wanted.add_index("vector", index_type=self.kind, metric_type=self._metric, params=self._params(dim))
                client.create_index(self._name, wanted)
            while client.describe_index(self._name, "vector").get("pending_index_rows"):
                time.sleep(0.2)

        self._milvus.ask(index)

    def _fill(self, store: VectorStore, progress: Advance | None) -> None:
        there = self._milvus.ask(self._listed)
        new, start = ~np.isin(self._keys, there), 0
        for vectors in store.vectors():
            for first in range(0, len(vectors), self._batch):
                block = np.asarray(vectors[first : first + self._batch], np.float32)
                own = new[start : start + len(block)].nonzero()[0]
                self._upsert(self._keys[start + own], block[own])
                start += len(block)
                if progress:
                    progress(len(block))
        left = np.setdiff1d(there, self._keys)
        for first in range(0, len(left), self._batch):
            self._delete(left[first : first + self._batch])

    def _listed(self, client: Any) -> np.ndarray:  # noqa: ANN401
        """(n,) int64, the keys that the collection has."""
        if self.uri is None:  # which would sort all of them for each page
            rows = client.query(self._name, output_fields=["id"], limit=2**31 - 1)
        else:
            pages = client.query_iterator(self._name, MOST, output_fields=["id"], timeout=self._timeout)
            rows = [row for page in iter(pages.next, []) for row in page]
            pages.close()
        return np.array([row["id"] for row in rows], np.int64)

    def _upsert(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        rows = [{"id": key, "vector": vector} for key, vector in zip(keys.tolist(), vectors, strict=True)]
        if rows:
            self._milvus.ask(lambda client: client.upsert(self._name, rows, timeout=self._timeout))

    def _delete(self, keys: np.ndarray) -> None:
        self._milvus.ask(lambda client: client.delete(self._name, ids=keys.tolist(), timeout=self._timeout))

    def save(self, folder: Path) -> None:
        self._milvus.close()  # Milvus Lite writes until then
        with atomic_path(folder / KEYS) as temporary, temporary.open("wb") as file:
            np.save(file, self._keys)
        write_json(folder / IDENTITY, {**read_json(folder / IDENTITY), "collection": self._name})
        self.load(folder, self._similarity)

    def load(self, folder: Path, similarity: Similarity) -> None:
        self._similarity = similarity
        self._take((read_json(folder / IDENTITY) or {}).get("collection", self.collection), np.load(folder / KEYS))
        self._connect(folder, shared=True)
        if self._milvus.ask(self._count) != len(self._keys):
            raise self._not_ours()

    def _count(self, client: Any) -> int:  # noqa: ANN401
        """How many vectors the collection has; -1 if there is none."""
        if not client.has_collection(self._alias):
            return -1
        client.load_collection(self._alias)
        rows = client.query(self._alias, output_fields=["count(*)"], consistency_level="Strong", timeout=self._timeout)
        return int(rows[0]["count(*)"])

    def _not_ours(self) -> UserError:
        remedy = "load the index anew if it has been renewed, else run embed.py again"
        return UserError(f"{self._milvus.place} has no whole collection {self._alias}: {remedy}.")

    def _search(self, q_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, len(self._keys))
        scores, rows = np.full((len(q_BD), k), -np.inf, np.float32), np.full((len(q_BD), k), -1, np.int64)
        step = QUERIES
        if self.uri is None and self._metric == "L2":
            step = max(1, min(step, NUMBERS // max(1, len(self._keys) * q_BD.shape[1])))
        for start in range(0, len(q_BD) if k else 0, step):
            for i, hits in enumerate(self._hits(q_BD[start : start + step], min(k, MOST)), start):
                found = np.array([hit["distance"] for hit in hits], np.float32)
                scores[i, : len(hits)] = self._similarity.from_distance(torch.from_numpy(found)).numpy()
                rows[i, : len(hits)] = self._rows([hit["id"] for hit in hits])
        return scores, rows

    def _hits(self, q_BD: np.ndarray, k: int) -> list[list[dict[str, Any]]]:
        # Milvus refuses to search a graph for fewer candidates than hits.
        ef = min(max(self.ef_search, k), MOST_CANDIDATES)
        named = {"nprobe": {"nprobe": min(self.nprobe, MOST_LISTS)}, "ef_search": {"ef": ef}}
        params = named.get(self.search_param, {})
        asked = {"limit": k, "output_fields": ["id"], "search_params": {"metric_type": self._metric, "params": params}}
        asked |= {"consistency_level": self._consistency, "timeout": self._timeout}

        def search(client: Any) -> list[list[dict[str, Any]]]:  # noqa: ANN401
            from pymilvus import MilvusException

            try:
                return list(client.search(self._alias, np.asarray(q_BD, np.float32), **asked))
            except MilvusException as error:
                if error.code == NOT_FOUND:
                    raise self._not_ours() from error
                if error.code != NOT_LOADED:
                    raise
            client.load_collection(self._alias)  # the server has started anew
            return list(client.search(self._alias, np.asarray(q_BD, np.float32), **asked))

        return self._milvus.ask(search)

    def _rows(self, keys: list[int]) -> np.ndarray:
        """(n,) int64."""
        wanted = np.array(keys, np.int64)
        places = np.searchsorted(self._keys, wanted, sorter=self._order)
        rows: np.ndarray = self._order[np.minimum(places, len(self._order) - 1)]
        if (self._keys[rows] != wanted).any():  # another has written to it
            raise self._not_ours()
        return rows

    def size(self, folder: Path) -> int:
        """Bytes of the database; without it, on a server, of the keys."""
        return sum(file.stat().st_size for file in [folder / KEYS, *(folder / LITE).rglob("*")] if file.is_file())
