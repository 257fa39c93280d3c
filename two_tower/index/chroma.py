"""Chroma: a vector database, in the folder of the index or on a server."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from two_tower.console import Advance
from two_tower.errors import UserError, at_least
from two_tower.files import write_json
from two_tower.index.base import VectorIndex
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

IDENTITY = "chroma.json"  # beside the vectors: the collection's own id, since anyone can reuse a name


class ChromaIndex(VectorIndex):
    """A collection whose ids are the rows of the store."""

    carried = (IDENTITY,)

    def __init__(
        self, host: str | None = None, port: int = 8000, ssl: bool = False, token_variable: str = "CHROMA_TOKEN",
        tenant: str = "default_tenant", database: str = "default_database", collection: str = "passages",
        ef_construction: int = 100, ef_search: int = 100, m: int = 32,
    ) -> None:  # fmt: skip
        try:
            import chromadb  # noqa: F401
        except ModuleNotFoundError as error:
            raise UserError('index=chroma needs its package: pip install -e ".[chroma]"') from error
        at_least(1, port=port, ef_construction=ef_construction, ef_search=ef_search)
        at_least(2, m=m)
        self.host, self.port, self.collection = host, port, collection
        self._server: dict[str, Any] = {"ssl": ssl, "tenant": tenant, "database": database}
        self._token_variable = token_variable
        self.ef_construction, self.ef_search, self.m = ef_construction, ef_search, m
        self._collection: Any = None
        self._similarity, self._rows = Similarity(), 0
        self.structure = f"Chroma{m}"

    def _client(self, folder: Path) -> Any:  # noqa: ANN401
        import chromadb

        settings = chromadb.Settings(anonymized_telemetry=False)
        if self.host is None:
            return chromadb.PersistentClient(str(folder / "chroma"), settings)
        token = os.environ.get(self._token_variable)
        headers = {"Authorization": f"Bearer {token}", "X-Chroma-Token": token} if token else None
        with self._answering():
            return chromadb.HttpClient(self.host, self.port, headers=headers, settings=settings, **self._server)

    @contextmanager
    def _answering(self, *expected: type[Exception]) -> Iterator[None]:
        """Say in one sentence what is wrong with a server; Chroma raises whatever comes to it."""
        try:
            yield
        except Exception as error:
            if self.host is None or isinstance(error, (UserError, *expected)):
                raise
            place, kind = f"The Chroma server at {self.host}:{self.port}", type(error).__name__
            text = " ".join(str(error).split())[:200] or kind
            denied = kind == "ChromaAuthError" or "Forbidden" in text or "Unauthorized" in text
            if denied or _statuses(error) & {401, 403}:
                raise UserError(f"{place} wants a token: put it into the variable {self._token_variable}") from error
            remedy = "is it there, is index.ssl right, and has it the version of the installed chromadb?"
            raise UserError(f"{place} does not answer as one should ({text}): {remedy}") from error

    def build(self, store: VectorStore, progress: Advance | None = None) -> None:
        self._similarity = Similarity(store.manifest.similarity)
        if self.host is None:
            shutil.rmtree(store.path / "chroma", ignore_errors=True)
        with self._answering():
            self._fill(self._client(store.path), store, progress)

    def _fill(self, client: Any, store: VectorStore, progress: Advance | None) -> None:  # noqa: ANN401
        self._delete_earlier(client, store.path)
        space = "l2" if self._similarity.metric == "l2" else "ip"
        graph = {"space": space, "ef_construction": self.ef_construction, "ef_search": self.ef_search}
        collection = client.create_collection(
            self.collection, configuration={"hnsw": {**graph, "max_neighbors": self.m}}, embedding_function=None
        )
        write_json(store.path / IDENTITY, {"id": str(collection.id)})
        start, batch_size = 0, client.get_max_batch_size()
        for vectors in store.vectors():
            for first in range(0, len(vectors), batch_size):
                block = np.asarray(vectors[first : first + batch_size], np.float32)
                collection.add(ids=[str(start + row) for row in range(len(block))], embeddings=block)
                start += len(block)
                if progress:
                    progress(len(block))
        self._collection, self._rows = collection, start

    def _delete_earlier(self, client: Any, folder: Path) -> None:  # noqa: ANN401
        """Delete the collection of an earlier build, and no one else's."""
        import chromadb.errors

        try:
            existing = client.get_collection(self.collection, embedding_function=None)
        except (chromadb.errors.NotFoundError, ValueError):
            return
        if str(existing.id) != _identity(folder).get("id"):
            taken = f"The Chroma server at {self.host}:{self.port} has a collection {self.collection}"
            raise UserError(f"{taken} that is not of {folder}: choose another index.collection=NAME.")
        client.delete_collection(self.collection)

    def save(self, folder: Path) -> None:
        # The database has written the vectors itself.
        write_json(folder / IDENTITY, {"id": str(self._collection.id), "rows": self._rows})

    def load(self, folder: Path, similarity: Similarity) -> None:
        from chromadb.errors import NotFoundError

        try:
            client = self._client(folder)
            with self._answering(NotFoundError):
                self._collection = client.get_collection(self.collection, embedding_function=None)
                self._rows = self._collection.count()
            if _identity(folder) != {"id": str(self._collection.id), "rows": self._rows}:
                raise ValueError("another collection")
        except UserError:
            raise
        except Exception as error:  # Chroma raises many kinds
            where = folder / "chroma" if self.host is None else f"{self.host}:{self.port}"
            raise UserError(f"{where} holds no whole collection {self.collection}: run embed.py again.") from error
        self._similarity = similarity

    def _search(self, q_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, self._rows)
        scores, rows = np.full((len(q_BD), k), -np.inf, np.float32), np.full((len(q_BD), k), -1, np.int64)
        if not len(q_BD) or not k:
            return scores, rows
        with self._answering():
            hits = self._collection.query(np.asarray(q_BD, np.float32), n_results=k, include=["distances"])
        for i, (ids, distances) in enumerate(zip(hits["ids"], hits["distances"], strict=True)):
            rows[i, : len(ids)] = [int(name) for name in ids]
            found = np.array(distances, np.float32)
            l2 = self._similarity.metric == "l2"
            scores[i, : len(ids)] = self._similarity.from_distance(torch.from_numpy(found)).numpy() if l2 else 1 - found
        return scores, rows

    def size(self, folder: Path) -> int:
        """Bytes of the database; 0 for a server's."""
        return sum(file.stat().st_size for file in (folder / "chroma").rglob("*") if file.is_file())


def _identity(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _statuses(error: BaseException | None) -> set[int | None]:
    """The HTTP statuses of an error and of those that caused it."""
    found = set[int | None]()
    while error is not None:
        found.add(getattr(getattr(error, "response", None), "status_code", None))
        error = error.__cause__ or error.__context__
    return found
