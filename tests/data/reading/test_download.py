"""Downloads from a local server that is whole, slow to end, forgetful, changed, wrong or absent."""

import copy
import hashlib
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
from rows import check_refused

from two_tower.data.reading import download as module
from two_tower.data.reading.download import download

CONTENT = random.Random(0).randbytes(1_000_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """A file server with the faults of the fixture."""

    faults: SimpleNamespace

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        faults = self.faults
        faults.requests.append(dict(self.headers))
        if faults.statuses:
            return self.send_error(faults.statuses.pop(0))
        start, wanted = 0, self.headers.get("Range")
        if wanted and faults.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) + faults.shift
            if start >= len(faults.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(faults.content)}")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(faults.content) - 1}/{len(faults.content)}")
        else:
            self.send_response(faults.whole)
        self.send_header("Content-Length", str(len(faults.content) - start))
        self.end_headers()
        end = start + faults.stops.pop(0) if faults.stops else len(faults.content)
        self.wfile.write(faults.content[start:end])
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.setattr(module, "_PAUSE", 0)
    monkeypatch.setattr(module, "_ATTEMPTS", 3)
    Handler.faults = faults = SimpleNamespace(
        content=CONTENT,
        ranges=True,  # whether it can continue a download
        whole=200,  # the status of a whole file; proxies have others
        shift=0,  # how far from where it was asked to
        stops=[],  # after how many bytes each further answer ends; whole answers afterwards
        statuses=[],  # errors to answer with first
        requests=[],  # the headers of each
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as faults.http:
        faults.url = f"http://127.0.0.1:{faults.http.server_port}/data/collection.tar.gz"
        threading.Thread(target=faults.http.serve_forever, args=(0.01,), daemon=True).start()
        yield faults
        faults.http.shutdown()


def fetch(server: SimpleNamespace, folder: Path, **arguments: Any) -> bytes:  # noqa: ANN401
    path = folder / "collection.tar.gz"
    download(server.url, path, **arguments)
    return path.read_bytes()


def left_over(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def starts(server: SimpleNamespace) -> list[int]:
    """Where each request wanted to start."""
    return [int(r.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")) for r in server.requests]


def test_a_whole_file_comes_once(server: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    for _ in range(2):
        assert fetch(server, folder, size=1_000_000, checksum=MD5, headers={"X-Ms-Version": "1"}) == CONTENT
    assert [request["X-Ms-Version"] for request in server.requests] == ["1"]
    assert left_over(folder) == {"collection.tar.gz"}


LOST = {"stops": [300_000, 1, 0, 400_000]}  # more than three, but not in a row without progress
FAULTS = {
    "lost connections are continued": (LOST, b"", [0, 300_000, 300_001, 300_001, 700_001]),
    "a server that cannot continue starts anew": ({"ranges": False, "stops": [300_000]}, b"", [0, 300_000]),
    "a proxy may have changed the file": ({"whole": 203, "ranges": False, "stops": [300_000]}, b"", [0, 300_000]),
    "a busy server is asked again": ({"statuses": [503, 429]}, b"", [0, 0, 0]),
    "a whole part is only checked": ({}, CONTENT, [1_000_000]),
    "too long a part is thrown away": ({}, CONTENT + b"x", [1_000_001, 0]),
    "a server that continues elsewhere starts anew": ({"stops": [300_000], "shift": 1}, b"", [0, 300_000, 0]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_whole_file_comes_in_the_end(
    server: SimpleNamespace, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    faults, part, expected = FAULTS[name]
    vars(server).update({key: copy.copy(value) for key, value in faults.items()})
    if part:
        (tmp_path / "collection.tar.gz.part").write_bytes(part)
    assert fetch(server, tmp_path, checksum=MD5) == CONTENT
    assert starts(server) == expected
    ended = "the connection ended after 300000 of 1000000 bytes; trying again"
    assert (ended in caplog.text) == ("stops" in faults)


def test_an_interrupted_download_is_continued_by_the_next_run(server: SimpleNamespace, tmp_path: Path) -> None:
    server.stops = [400_000, 0, 0]
    message = r"http://127.*collection\.tar\.gz cannot be downloaded .*run the same command"
    check_refused(lambda: fetch(server, tmp_path, checksum=MD5), message)
    assert left_over(tmp_path) == {"collection.tar.gz.part"}
    assert fetch(server, tmp_path, checksum=MD5) == CONTENT
    assert starts(server) == [0, 400_000, 400_000, 400_000]
    assert left_over(tmp_path) == {"collection.tar.gz"}


def test_a_server_that_never_gets_further_is_given_up(server: SimpleNamespace, tmp_path: Path) -> None:
    server.ranges, server.stops = False, [300_000] * 9
    check_refused(lambda: fetch(server, tmp_path), "300000 of 1000000 bytes")
    assert len(server.requests) == 3


def test_a_file_that_was_replaced_meanwhile_is_not_mixed(server: SimpleNamespace, tmp_path: Path) -> None:
    for checksum in (None, MD5):
        server.content, server.stops = CONTENT, [300_000, 0, 0]
        check_refused(lambda checksum=checksum: fetch(server, tmp_path, checksum=checksum), "cannot be downloaded")
        server.content = CONTENT[::-1]
        if checksum is not None:
            check_refused(lambda: fetch(server, tmp_path, checksum=MD5), "sent another file than expected")
        assert fetch(server, tmp_path) == CONTENT[::-1]
        assert starts(server) == [0, 0, 0, 0] if checksum is None else starts(server)[-1] == 0
        (tmp_path / "collection.tar.gz").unlink()


def test_another_file_than_expected_is_deleted(server: SimpleNamespace, tmp_path: Path) -> None:
    message = r"http://127.* sent another file than expected \(sha256 [0-9a-f]+ inst"
    check_refused(lambda: fetch(server, tmp_path, checksum="sha256:" + "0" * 64), message)
    assert not left_over(tmp_path)
    assert fetch(server, tmp_path, checksum=MD5.upper().replace("MD5", "md5")) == CONTENT


def test_an_address_without_a_file_is_named_at_once(server: SimpleNamespace, tmp_path: Path) -> None:
    server.statuses = [404]
    message = r"http://127.*collection\.tar\.gz cannot be downloaded: the server says 404"
    check_refused(lambda: fetch(server, tmp_path), message)
    assert len(server.requests) == 1
    server.http.shutdown()
    server.http.server_close()
    check_refused(lambda: fetch(server, tmp_path), r"http://127.* cannot be downloaded .*put the file into")


def test_waits_grow(server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    monkeypatch.setattr(module, "_PAUSE", 0.5)
    monkeypatch.setattr(module, "_ATTEMPTS", 4)
    server.statuses = [503] * 9
    check_refused(lambda: fetch(server, tmp_path), "503")
    assert waits == [0.5, 1.0, 2.0]


def test_a_wrong_setting_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    check_refused(lambda: download("file:///etc/hosts", tmp_path / "a"), "must begin with https")
    check_refused(lambda: download("http://x/y", tmp_path / "a", checksum="0123"), "must be written md5:HEX")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_seen_before(server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=800_000))
    check_refused(lambda: fetch(server, tmp_path, size=1_000_000), r"which has 0\.0 GiB left")
    (tmp_path / "collection.tar.gz.part").write_bytes(CONTENT[:300_000])
    assert fetch(server, tmp_path, size=1_000_000) == CONTENT


def test_processes_that_start_together_fetch_once(server: SimpleNamespace, tmp_path: Path) -> None:
    server.stops = [500_000]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fetch, args=(server, tmp_path), kwargs={"checksum": MD5}) for _ in range(3)]
    for act in (context.Process.start, context.Process.join):
        for worker in workers:
            act(worker)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "collection.tar.gz").read_bytes() == CONTENT
    assert starts(server) == [0, 500_000]
