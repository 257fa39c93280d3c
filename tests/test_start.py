"""``two-tower start``: from documents to an index in one command, by the commands that it shows."""

import importlib.util
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, word
from forked import run_forked

from two_tower import start
from two_tower.data.documents import Documents
from two_tower.run import Run


def write_handbook(folder: Path, chapters: int = 40, language: str = "") -> Path:
    for i in range(chapters):
        words = " ".join(f"{word(7 * i + j)} is here." for j in range(30))
        (folder / f"{i}.md").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.md").write_text(f"# About {word(7 * i)} {word(7 * i + 3)}\n\n{language or words}\n")
    return folder


def answers(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/files/new.md", timeout=5) as page:
        return page.read().startswith(b"# Something else")
    return False


def test_from_documents_to_an_index_and_on_when_they_change(tmp_path: Path) -> None:
    write_handbook(tmp_path / "my book")
    command = ["two-tower", "start", "my book", "teacher=none", "--no-page", "--run", "out"]
    ended = run_forked(*command, "trainer.max_steps=2", "data.passage_words=100", cwd=tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert "40 .md." in ended.out
    assert "40 passages of at most 100 words" in ended.out
    assert "Queries to learn from and to judge by: 40 headings" in ended.out
    shown = [line.split("$ ")[1] for line in ended.out.splitlines() if line.startswith("   $ ")]
    assert [each.split()[1] for each in shown] == ["train", "evaluate", "embed"]
    assert "'data.path=my book'" in shown[0]
    assert f"two-tower serve out --host 127.0.0.1 --port 8000 --files '{tmp_path}/my book' --watch" in ended.out
    run = Run(tmp_path / "out")
    assert run.hybrid.exists()
    found = run_forked("two-tower", "search", "out", f"about {word(7)}", "--json", cwd=tmp_path)
    hit = json.loads(found.out)["hits"][0]
    assert hit["fields"]["url"] == f"{(tmp_path / 'my book').as_uri()}/{hit['id']}"

    (tmp_path / "my book" / "new.md").write_text("# Something else\n\nWords of another kind.")
    before = run.best.read_bytes()
    ended = run_forked(*command, cwd=tmp_path)
    assert "out was trained on these documents as they were" in ended.out
    assert "40 kept, 1 added" in ended.out
    assert run.best.read_bytes() == before
    if importlib.util.find_spec("uvicorn") is None:
        return  # the page needs the extra serve
    port = random.randrange(20_000, 32_000)  # below those that the system gives to others
    shown = ["two_tower", "start", "my book", "--run", "out", "--no-browser", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", *shown], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        while process.poll() is None and not answers(port):
            time.sleep(0.1)
        assert answers(port)
    finally:
        process.terminate()
    assert process.wait() == 0


def test_a_mistake_ends_it_with_the_commands_own_sentence(tmp_path: Path) -> None:
    write_handbook(tmp_path / "book", 4)
    ended = run_forked("two-tower", "start", "book", "teacher=none", "tower=grew", "--no-page", cwd=tmp_path)
    assert ended.status == 2
    assert "tower=grew does not exist; did you mean 'gru'?" in ended.err
    ended = run_forked("two-tower", "start", "nothing", "--no-page", cwd=tmp_path)
    assert (ended.status, "nothing does not exist" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("language", "installed", "wanted"),
    [
        ("Every good boy deserves a holiday by the sea, says the old teacher.", True, ["experiment=distil_average"]),
        ("Every good boy deserves a holiday by the sea, says the old teacher.", False, []),
        ("Jedes brave Kind verdient Ferien am Meer, sagt der alte Lehrer immer.", True, []),
    ],
)  # fmt: skip
def test_what_fits_is_trained(
    language: str, installed: bool, wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None)
    source = Documents(write_handbook(tmp_path / "book", 3, language))
    choices, why = start._training(source, [])
    assert choices == wanted
    assert ("pip install" in why) == (not installed)
    monkeypatch.setattr(start, "TAUGHT", 2)
    assert start._training(source, [])[0] == (wanted and [*wanted, "teacher.sample=2"])
    assert start._training(source, ["experiment=best_gru"]) == ([], "As you say: experiment=best_gru.")


def test_counts_are_listed_the_most_frequent_first() -> None:
    assert start._listed(Counter({".md": 1200, "heading": 1})) == "1,200 .md, 1 heading"
    assert start._listed(Counter({"question": 2})) == "2 questions"
    assert start._listed(Counter("aaaabbbccd")) == "4 as, 3 bs, 2 cs, 1 d"
    assert start._listed(Counter("aaaabbbccdef")) == "4 as, 3 bs, 2 cs, 1 d and 2 kinds more"
    assert start._listed(Counter()) == "none"


def test_only_settings_of_data_reach_the_index() -> None:
    assert start._of_data(["data=documents", "data.path=a", "tower=gru"]) == ["data=documents", "data.path=a"]
