"""The documents that passages were made of: a browser opens no file: address that stands on a web page."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from two_tower.data.reading.encodings import guess

# What is offered, and as what. Text that a browser would save, or draw, is shown as it is.
TYPES = {
    **dict.fromkeys((".txt", ".md", ".markdown", ".rst", ".csv", ".tsv", ".jsonl"), "text/plain"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "text/html"),
    **dict.fromkeys((".jpg", ".jpeg"), "image/jpeg"),
    ".json": "application/json", ".pdf": "application/pdf", ".png": "image/png", ".gif": "image/gif",
    ".svg": "image/svg+xml", ".webp": "image/webp",
}  # fmt: skip
# Nothing in a document may run or send anything; it may look as it does on the disk.
_POLICY = "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; frame-ancestors 'none'"


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return guess(file.read(1 << 20)).replace("cp", "windows-")


class Files:
    """Answers ``/files/{path}``: the files of a folder and its folders, but for hidden ones.

    ``addresses`` are the beginnings of their file: URLs: of the folder as it was named and, where links lead to it, as
    it is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        named = Path(os.path.abspath(folder))
        self.addresses = [f"{path.as_uri()}/" for path in dict.fromkeys((named, self._folder))]

    async def answer(self, request: Request) -> Response:
        path = await run_in_threadpool(self._find, request.path_params["path"])  # a disk may be slow
        if path is None:
            raise HTTPException(404)
        headers = {"content-security-policy": _POLICY, "cache-control": "no-cache"}
        kind = TYPES[path.suffix.lower()]
        if kind == "text/plain":
            kind += f"; charset={await run_in_threadpool(_encoding, path)}"
        return FileResponse(path, media_type=kind, headers=headers)

    def _find(self, relative: str) -> Path | None:
        """The file itself, not a link to it; None for whatever is not offered."""
        if any(character in relative for character in "\\\0"):
            return None
        try:
            path = Path(os.path.realpath(self._folder.joinpath(*relative.split("/")), strict=True))
            parts = path.relative_to(self._folder).parts
        except (OSError, ValueError):  # it does not exist, leads round in links, or lies elsewhere
            return None
        hidden = any(part.startswith(".") for part in (*relative.split("/"), *parts))
        offered = path.suffix.lower() in TYPES and path.is_file()
        return path if offered and not hidden and all(relative.split("/")) else None
