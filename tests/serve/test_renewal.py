"""A service takes up an index that has changed, and loses no request meanwhile."""

import json
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from conftest import composed, word
from forked import forked
from serve.serving import Service, served
from test_train import fit

from two_tower.embed import embed
from two_tower.search import load_searchers
from two_tower.serve import Runs, renewal

for package in ("fastapi", "uvicorn"):
    pytest.importorskip(package, reason="needs the service: pip install -e '.[serve]'")


@pytest.fixture
def mine(collection: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An embedded run and the passages of its index."""
    run, folder = tmp_path / "run", shutil.copytree(collection, tmp_path / "mine")
    fit(folder, run, "tokenizer.min_frequency=1", "trainer.max_steps=1")
    embed_again(run, folder)
    return run, folder


def embed_again(run: Path, folder: Path) -> None:
    data = ("data=beir", f"data.path={folder}")
    embed(composed(f"run={run}", *data, program="embed"))


def add_passage(folder: Path) -> None:
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "new", "title": "", "text": f"{word(0)} zebrafish zebrafish"}) + "\n")


def passages_within(service: Service, seconds: float, wanted: int) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if service.ask("/health")[1]["indexes"]["run"]["passages"] == wanted:
            return True
        time.sleep(0.05)
    return False


def test_no_request_is_lost_while_an_index_is_taken_up(
    mine: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "EVERY", 0.05)
    run, folder = mine
    load = partial(load_searchers, [run])
    statuses, stop = Counter[int](), threading.Event()
    with served(Runs(load(), load=load), watch=True) as service:

        def ask() -> None:
            while not stop.is_set():
                statuses[service.ask(f"/search?q={word(0)}&mode=hybrid")[0]] += 1

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        add_passage(folder)
        embed_again(run, folder)
        try:
            assert passages_within(service, 30, 241)
        finally:
            stop.set()
            for client in clients:
                client.join()
        assert set(statuses) == {200}
        assert statuses[200] > 20
        assert service.ask("/search?q=zebrafish&k=1")[1]["hits"][0]["id"] == "new"
        assert 'two_tower_passages{run="run"} 241.0' in service.ask("/metrics")[1]


def test_an_index_that_cannot_be_loaded_is_told_and_the_old_one_stays(
    mine: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(renewal, "EVERY", 0.05)
    run, folder = mine
    load = partial(load_searchers, [run])
    with served(Runs(load(), load=load), watch=True) as service:
        kept = (run / "index" / "index.faiss").read_bytes()
        add_passage(folder)
        (run / "index" / "index.faiss").write_bytes(kept[:-1])
        (run / "index" / "index.yaml").touch()
        end = time.monotonic() + 10
        while "missing or damaged" not in caplog.text and time.monotonic() < end:
            time.sleep(0.05)
        assert "index.faiss is missing or damaged" in caplog.text
        assert service.ask(f"/search?q={word(0)}")[0] == 200
        embed_again(run, folder)
        assert passages_within(service, 30, 241)


def test_sighup_makes_the_command_take_up_a_new_index(mine: tuple[Path, Path], tmp_path: Path) -> None:
    run, folder = mine
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with forked("two-tower", "serve", str(run), "--port", str(port), cwd=tmp_path) as process:
        service = Service(f"http://127.0.0.1:{port}")
        while not service.listens():
            process.check_alive()
            time.sleep(0.05)
        assert passages_within(service, 10, 240)
        add_passage(folder)
        embed_again(run, folder)
        process.send(signal.SIGHUP)
        assert passages_within(service, 30, 241)
        process.send(signal.SIGTERM)
        assert process.ended().status == 0
