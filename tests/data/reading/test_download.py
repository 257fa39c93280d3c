"""Downloads from a local server that is whole, slow to end, forgetful, changed, wrong or absent."""

import hashlib
import logging
import multiprocessing
import random
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from two_tower.data.reading import download as module
from two_tower.data.reading.download import download
from two_tower.errors import UserError

CONTENT = random.Random(0).randbytes(1_000_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Server:
    """A file server with faults."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.ranges = True  # whether it can continue a download
        self.etag: str | None = '"one"'  # identifies the file's version
        self.stops: list[int] = []  # after how many bytes each further answer ends; whole answers afterwards
        self.statuses: list[int] = []  # errors to answer with first
        self.requests: list[dict[str, str]] = []  # the headers of each
        handler = type("Handler", (_Handler,), {"faults": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data/collection.tar.gz"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    faults: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        faults = self.faults
        faults.requests.append(dict(self.headers))
        if faults.statuses:
            return self.send_error(faults.statuses.pop(0))
        start, wanted = 0, self.headers.get("Range")
        if wanted and faults.ranges and self.headers.get("If-Range", faults.etag) == faults.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(faults.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(faults.content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(faults.content) - 1}/{len(faults.content)}")
        else:
            self.send_response(200)
        if faults.etag:
            self.send_header("ETag", faults.etag)
        self.send_header("Content-Length", str(len(faults.content) - start))
        self.end_headers()
        end = start + faults.stops.pop(0) if faults.stops else len(faults.content)
        self.wfile.write(faults.content[start:end])
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "_PAUSE", 0)
    monkeypatch.setattr(module, "_ATTEMPTS", 3)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def fetch(server: Server, folder: Path, **arguments: Any) -> bytes:  # noqa: ANN401
    path = folder / "collection.tar.gz"
    download(server.url, path, **arguments)
    return path.read_bytes()


def check_refused(server: Server, folder: Path, message: str, **arguments: Any) -> None:  # noqa: ANN401
    with pytest.raises(UserError, match=message):
        fetch(server, folder, **arguments)


def left_over(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def starts(server: Server) -> list[int]:
    """Where each request wanted to start."""
    return [int(r.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")) for r in server.requests]


def test_a_whole_file_comes_once(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    for _ in range(2):
        assert fetch(server, folder, size=1_000_000, checksum=MD5, headers={"X-Ms-Version": "1"}) == CONTENT
    assert [request["X-Ms-Version"] for request in server.requests] == ["1"]
    assert left_over(folder) == {"collection.tar.gz"}


@pytest.mark.parametrize("etag", ['"one"', None])
def test_a_lost_connection_is_continued(
    server: Server, tmp_path: Path, etag: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    server.etag, server.stops = etag, [300_000, 1, 0, 400_000]  # more than three, but not in a row without progress
    with caplog.at_level(logging.WARNING):
        assert fetch(server, tmp_path, checksum=MD5) == CONTENT
    assert starts(server) == [0, 300_000, 300_001, 300_001, 700_001]
    assert "the connection ended after 300000 of 1000000 bytes; trying again" in caplog.text


def test_an_interrupted_download_is_continued_by_the_next_run(server: Server, tmp_path: Path) -> None:
    server.stops = [400_000, 0, 0]
    check_refused(server, tmp_path, r"http://127.*collection\.tar\.gz cannot be downloaded .*run the same command")
    assert (tmp_path / "collection.tar.gz.part").read_bytes() == CONTENT[:400_000]
    assert not (tmp_path / "collection.tar.gz").exists()
    assert fetch(server, tmp_path, checksum=MD5) == CONTENT
    assert starts(server) == [0, 400_000, 400_000, 400_000]
    assert left_over(tmp_path) == {"collection.tar.gz"}


@pytest.mark.parametrize(("too_much", "expected"), [(b"", [1_000_000]), (b"x", [1_000_001, 0])])
def test_a_whole_part_is_only_checked_and_too_long_a_one_thrown_away(
    server: Server, tmp_path: Path, too_much: bytes, expected: list[int]
) -> None:
    (tmp_path / "collection.tar.gz.part").write_bytes(CONTENT + too_much)
    assert fetch(server, tmp_path, checksum=MD5) == CONTENT
    assert starts(server) == expected


def test_a_server_that_cannot_continue_starts_anew_and_is_given_up(server: Server, tmp_path: Path) -> None:
    server.ranges, server.stops = False, [300_000, 200_000]
    assert fetch(server, tmp_path / "a", checksum=MD5) == CONTENT
    assert starts(server) == [0, 300_000, 200_000]
    server.stops = [300_000] * 9
    check_refused(server, tmp_path / "b", "300000 of 1000000 bytes")
    assert len(server.requests) == 3 + 3


def test_a_file_that_was_replaced_meanwhile_is_not_mixed(server: Server, tmp_path: Path) -> None:
    server.stops = [300_000, 0, 0]
    check_refused(server, tmp_path, "cannot be downloaded")
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert fetch(server, tmp_path) == CONTENT[::-1]
    assert server.requests[-1]["If-Range"] == '"one"'


def test_another_file_than_expected_is_deleted(server: Server, tmp_path: Path) -> None:
    message = r"http://127.* sent another file than expected \(sha256 [0-9a-f]+ inst"
    check_refused(server, tmp_path, message, checksum="sha256:" + "0" * 64)
    assert left_over(tmp_path) <= {".collection.tar.gz.part.tag"}
    assert fetch(server, tmp_path, checksum=MD5.upper().replace("MD5", "md5")) == CONTENT


def test_an_address_without_a_file_is_named_at_once(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    check_refused(server, tmp_path, r"http://127.*collection\.tar\.gz cannot be downloaded: the server says 404")
    assert len(server.requests) == 1
    server.http.shutdown()
    server.http.server_close()
    check_refused(server, tmp_path, r"http://127.* cannot be downloaded .*put the file into")


def test_a_busy_server_is_asked_again_after_growing_waits(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.statuses = [503, 429]
    assert fetch(server, tmp_path) == CONTENT
    assert len(server.requests) == 3
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    monkeypatch.setattr(module, "_PAUSE", 0.5)
    monkeypatch.setattr(module, "_ATTEMPTS", 4)
    server.statuses = [503] * 9
    check_refused(server, tmp_path / "a", "503")
    assert waits == [0.5, 1.0, 2.0]


def test_a_wrong_setting_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must begin with https"):
        download("file:///etc/hosts", tmp_path / "a")
    with pytest.raises(UserError, match="must be written md5:HEX"):
        download("http://x/y", tmp_path / "a", checksum="0123")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_seen_before(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=800_000))
    check_refused(server, tmp_path, r"which has 0\.0 GiB left", size=1_000_000)
    (tmp_path / "collection.tar.gz.part").write_bytes(CONTENT[:300_000])
    assert fetch(server, tmp_path, size=1_000_000) == CONTENT


def test_processes_that_start_together_fetch_once(server: Server, tmp_path: Path) -> None:
    server.stops = [500_000]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fetch, args=(server, tmp_path), kwargs={"checksum": MD5}) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "collection.tar.gz").read_bytes() == CONTENT
    assert starts(server) == [0, 500_000]
