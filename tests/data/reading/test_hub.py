"""The hub itself: the real clients against a small server that answers as the hub does."""

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

ROOT = Path(__file__).parents[3]
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
    """The data sets someone/NAME, whose files are in ``folder``/NAME; ``requests`` are the paths asked for."""

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
        Hub.commit = COMMIT[::-1] if path == "/NEWER" else Hub.commit
        _, api, *parts = path.split("/")
        name, kind, *rest = [*parts[2 if api == "api" else 1 :], "", ""]
        if not (self.folder / name).is_dir() or "someone" not in parts:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif kind == "resolve":
            self.send_file(self.folder.joinpath(name, *rest[1:]))
        elif kind == "tree":
            folder = self.folder.joinpath(name, *rest[1:])
            self.send(200, json.dumps([self.entry(p, name) for p in sorted(folder.iterdir())]).encode())
        else:
            answer = {"id": f"someone/{name}", "sha": self.commit, "siblings": [], "tags": []}
            self.send(200, json.dumps(answer).encode())

    def entry(self, path: Path, name: str) -> dict[str, object]:
        kind = {"type": "file", "size": path.stat().st_size} if path.is_file() else {"type": "directory"}
        return {**kind, "path": str(path.relative_to(self.folder / name)), "oid": "0"}

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
        path = Hub.folder / f"pairs/{name}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = {column: [f"{column} {name} {i}" for i in range(count)] for column in ("query", "positive")}
        pq.write_table(pa.table(texts), path)
    (Hub.folder / "pairs/README.md").write_text(README)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def spoil(*suffixes: str) -> None:
    """Data sets that begin well and break later: a damaged page, a malformed line, a file that is cut."""
    rows = [{"query": f"query {i}", "positive": hashlib.sha512(b"%d" % i).hexdigest()} for i in range(100_000)]
    for suffix in suffixes:
        path = Hub.folder / f"broken{suffix}/train-0{suffix}"
        path.parent.mkdir()
        (path.parent / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: train-*\n---\n")
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows[:20_000]), path, row_group_size=1000)
            content = bytearray(path.read_bytes())
            content[len(content) // 2 : len(content) // 2 + 500] = bytes(500)
        else:
            lines = [json.dumps(row).encode() for row in rows]
            lines[90_000] = b'{"query": "a", "pos'
            content = bytearray(b"\n".join(lines))
            content = content if suffix == ".jsonl" else bytearray(gzip.compress(content[:1_000_000])[:-10_000])
        path.write_bytes(content)


# A line per data set: its fingerprint, splits and passages, or the mistake. "MARK" asks the server for /MARK; after
# "NEWER" it has another commit, and what follows is not streamed.
PROGRAM = """
import json, sys, urllib.error, urllib.request
from two_tower.data.huggingface import HuggingFace
from two_tower.errors import UserError

def ask(mark):
    try:
        urllib.request.urlopen(f"{endpoint}/{mark}")
    except urllib.error.HTTPError:
        pass

endpoint, local, *names = sys.argv[1:]
streaming = True
for name in names:
    if name == "NEWER":
        streaming = ask(name)
        continue
    path, _, config = name.partition(":")
    try:
        source = HuggingFace(path, config or None, streaming=bool(streaming))
        found = [source.fingerprint(), source.splits()]
        ask("MARK")
        passages = [row["text"] for batch in source.corpus() for row in batch.to_pylist()]
        print(json.dumps([*found, passages, len(source.queries("dev"))]))
    except UserError as error:
        print(json.dumps(str(error)))
sys.stdout.flush()
for batch in HuggingFace(local, "pairs").corpus():  # a program may end right after reading
    pass
"""


def run(hub: ThreadingHTTPServer, home: Path, *names: str) -> list:
    # The clients read their settings when they are imported.
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {**os.environ, **own, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", PROGRAM, endpoint, str(Hub.folder / "pairs"), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_broken(message: str, suffix: str, cause: str) -> None:
    place = f"someone/broken{suffix} train"
    assert re.match(rf"{place} cannot be read from the hub \(.*({cause}).*\): .*data\.path=FOLDER", message)


def test_data_sets_are_read_from_the_hub(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    spoil(".parquet", ".jsonl", ".jsonl.gz")
    streamed = ["someone/pairs:pears", "someone/nothing", "someone/broken.parquet", "someone/broken.jsonl"]
    names = ["someone/pairs:pairs", *streamed, "NEWER", "someone/pairs:pairs", "someone/broken.jsonl.gz"]
    found, pears, nothing, parquet, lines, again, cut = run(hub, tmp_path / "home", *names)
    fingerprint, splits, passages, dev = found
    assert (splits, dev) == (["train", "dev"], 2)
    rows = [("train", 0), ("train", 1), ("train", 2), ("validation", 0), ("validation", 1)]
    assert passages == [f"positive pairs/{name} {i}" for name, i in rows]
    assert "BuilderConfig 'pears' not found. Available: ['pairs', 'others']" in pears
    assert nothing.startswith("someone/nothing is not on the hub")
    check_broken(parquet, ".parquet", "Unexpected end of stream")
    check_broken(lines, ".jsonl", "JSON parse error")
    data = [path for path in Hub.requests if path.endswith((".parquet", "/MARK"))]
    assert data[0] == "/MARK"  # the fingerprint needs no data
    assert not [path for path in data if "others/" in path]
    assert again[1:] == found[1:]
    assert again[0] != fingerprint  # another commit
    check_broken(cut, ".jsonl.gz", "Compressed file ended before")
