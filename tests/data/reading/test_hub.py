"""The hub itself: the real clients against a small server that answers as the hub does."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
README = """---
configs:
- config_name: pairs
  data_files:
  - {split: train, path: pairs/train-*}
  - {split: validation, path: pairs/validation-*}
- config_name: others
  data_files: others/*
---
"""


class Hub(BaseHTTPRequestHandler):
    """The data set someone/pairs, whose files are in ``folder``; ``requests`` are the paths that were asked for."""

    protocol_version = "HTTP/1.1"
    folder: Path
    commit: str
    requests: list[str]

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.requests.append(path)
        if path.startswith("/datasets/someone/pairs/resolve/"):
            self.send_file(self.folder / path.split("/", 6)[6])
        elif path.startswith("/api/datasets/someone/pairs/tree/"):
            folder = self.folder.joinpath(*path.split("/")[7:])
            self.send(200, json.dumps([self.entry(p) for p in sorted(folder.iterdir())]).encode())
        elif path.startswith("/api/datasets/someone/pairs"):
            self.send(200, json.dumps({"id": "someone/pairs", "sha": self.commit, "siblings": [], "tags": []}).encode())
        else:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def entry(self, path: Path) -> dict[str, object]:
        kind = {"type": "file", "size": path.stat().st_size} if path.is_file() else {"type": "directory"}
        return {**kind, "path": str(path.relative_to(self.folder)), "oid": "0"}

    def send_file(self, path: Path) -> None:
        if not path.is_file():
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit})
        content = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": self.commit}
        if wanted := self.headers.get("Range"):
            first, last = (int(n) for n in wanted.removeprefix("bytes=").split("-"))
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return self.send(206, content[first : last + 1], headers)
        return self.send(200, content, {**headers, "Accept-Ranges": "bytes"})

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    Hub.folder, Hub.commit, Hub.requests = tmp_path / "files", COMMIT, []
    for name, count in (("pairs/train", 3), ("pairs/validation", 2), ("others/train", 1)):
        path = Hub.folder / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = {column: [f"{column} {name} {i}" for i in range(count)] for column in ("query", "positive")}
        pq.write_table(pa.table(texts), path)
    (Hub.folder / "README.md").write_text(README)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


PROGRAM = """
import json, sys
from two_tower.data.huggingface import HuggingFace
from two_tower.errors import UserError

source = HuggingFace("someone/pairs", "pairs", streaming=sys.argv[1] == "True")
print(json.dumps([source.fingerprint(), source.splits()]), flush=True)
print(json.dumps([batch.to_pylist() for batch in source.corpus()] + [len(source.queries("dev"))]), flush=True)
for path, config in (("someone/pairs", "pears"), ("someone/nothing", None)):
    try:
        HuggingFace(path, config).splits()
    except UserError as error:
        print(json.dumps(str(error)))
"""


def run(hub: ThreadingHTTPServer, home: Path, streaming: bool = True, program: str = PROGRAM) -> list:
    # The clients read their settings when they are imported.
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **own, "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", program, str(streaming)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_data_set_is_read_from_the_hub(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    streamed = run(hub, tmp_path / "a", streaming=True)
    assert len([path for path in Hub.requests if "others/" in path]) == 0
    Hub.commit = COMMIT[::-1]
    downloaded = run(hub, tmp_path / "b", streaming=False)
    (fingerprint, splits), (*batches, dev), *mistakes = streamed
    assert splits == ["train", "dev"]
    rows = [("train", 0), ("train", 1), ("train", 2), ("validation", 0), ("validation", 1)]
    assert [row["text"] for batch in batches for row in batch] == [f"positive pairs/{name} {i}" for name, i in rows]
    assert dev == 2
    assert downloaded[1] == streamed[1]
    assert downloaded[0][0] != fingerprint  # another commit
    assert "BuilderConfig 'pears' not found. Available: ['pairs', 'others']" in mistakes[0]
    assert mistakes[1].startswith("someone/nothing is not on the hub")


def spoil(folder: Path, suffix: str) -> None:
    """Make a stream that begins well and breaks later: a malformed line, a damaged page, a file that is cut."""
    for path in folder.rglob("*.parquet"):
        path.unlink()
    path = folder / f"pairs/train-0{suffix}"
    rows = [{"query": f"query {i}", "positive": hashlib.sha512(b"%d" % i).hexdigest()} for i in range(100_000)]
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=1000)
        content = bytearray(path.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 500] = bytes(500)
    else:
        lines = [json.dumps(row).encode() for row in rows]
        if suffix == ".jsonl":
            lines[90_000] = b'{"query": "a", "pos'
        content = bytearray(b"\n".join(lines))
        content = content if suffix == ".jsonl" else bytearray(gzip.compress(content)[:-10_000])
    path.write_bytes(content)


BROKEN = """
import json, sys
from two_tower.data.huggingface import HuggingFace
from two_tower.errors import UserError

source = HuggingFace("someone/pairs", "pairs", splits={"train": "train"}, streaming=sys.argv[1] == "True")
try:
    print(json.dumps(sum(len(batch) for batch in source.corpus())))
except UserError as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.parametrize(
    ("suffix", "streaming", "cause"),
    [
        (".parquet", True, "Unexpected end of stream"),
        (".jsonl", True, "JSON parse error"),
        (".jsonl.gz", False, "Compressed file ended before"),
    ],
)
def test_a_stream_that_breaks_names_the_data_set_and_the_split(
    hub: ThreadingHTTPServer, tmp_path: Path, suffix: str, streaming: bool, cause: str
) -> None:
    spoil(Hub.folder, suffix)
    (Hub.folder / "README.md").write_text(README.split("  - {split: validation")[0] + "---\n")
    (message,) = run(hub, tmp_path / "home", streaming, BROKEN)
    place = "someone/pairs pairs train"
    assert re.match(rf"{place} cannot be read from the hub \(.*({cause}).*\): .*data\.path=FOLDER", message)


def test_the_fingerprint_downloads_no_data(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    run(hub, tmp_path, program=PROGRAM.split("print(json.dumps([batch")[0])
    assert Hub.requests
    assert not [path for path in Hub.requests if path.endswith(".parquet")]
