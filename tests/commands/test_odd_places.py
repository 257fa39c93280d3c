"""Folders that can only be read, disks that are full, and characters that are none, for a run that has been made."""

import errno
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import word
from test_train import fit
from training import embedded

from two_tower.bm25 import BM25
from two_tower.config.compose import quoted
from two_tower.files import write_text
from two_tower.fusion import Fusion

Call = Callable[..., Any]  # see conftest.py in this folder


@pytest.fixture(scope="module")
def run(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("odd") / "run"
    fit(collection, path, "trainer.max_epochs=1", "tower.dim=8")
    return embedded(path)


def refuses(number: int) -> Callable[..., Any]:
    def refuse(*arguments: Any, **_: Any) -> Any:  # noqa: ANN401
        place = next(str(each) for each in arguments if isinstance(each, str | Path))
        raise OSError(number, os.strerror(number), place)

    return refuse


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_what_only_saves_time_is_optional(run: Path, call: Call, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """BM25's index beside a search, and how a run is fused, cannot be kept."""
    for name in ("hybrid.json", "index/bm25.npz"):
        (run / name).unlink(missing_ok=True)
    monkeypatch.setattr(BM25, "save", refuses(number))
    monkeypatch.setattr(Fusion, "write", refuses(number))
    found = [call("two-tower", "search", run, "bababa dedeba", "--hybrid", "--json") for _ in range(2)]
    assert {ended.status for ended in found} == {0}
    hits = [json.loads(ended.out.splitlines()[-1])["hits"] for ended in found]
    assert hits[0] == hits[1]
    results = call("two-tower", "evaluate", run, "--hybrid", "--json")
    assert results.status == 0
    assert not (run / "hybrid.json").exists()
    monkeypatch.undo()
    kept = call("two-tower", "evaluate", run, "--hybrid", "--json")
    assert json.loads(kept.out.splitlines()[-1]) == json.loads(results.out.splitlines()[-1])
    (run / "hybrid.json").unlink()


@pytest.mark.parametrize("place", ["embed", "export", "html", "plots"])
def test_a_name_that_is_too_long_is_a_sentence(run: Path, call: Call, tmp_path: Path, place: str) -> None:
    name = str(tmp_path / ("x" * 300))
    ended = {
        "embed": lambda: call("embed.py", f"run={quoted(str(run))}", f"output={name}"),
        "export": lambda: call("two-tower", "export", run, name),
        "html": lambda: call("two-tower", "compare", run, "--html", name),
        "plots": lambda: call("two-tower", "compare", run, "--plots", name),
    }[place]()
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert "too long" in ended.err
    assert "x" * 50 in ended.err


@pytest.mark.parametrize("command", ["search", "evaluate", "doctor", "embed.py", "train.py"])
def test_a_run_with_a_name_that_is_too_long_is_a_sentence(call: Call, collection: Path, command: str) -> None:
    name = "x" * 300
    arguments = {
        "search": ("two-tower", "search", name, "word"), "evaluate": ("two-tower", "evaluate", name),
        "doctor": ("two-tower", "doctor", name), "embed.py": ("embed.py", f"run={name}"),
        "train.py": ("train.py", "data=beir", f"data.path={collection}", f"run_dir={name}", "trainer=cpu"),
    }[command]  # fmt: skip
    ended = call(*arguments)
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert "x" * 50 in ended.err


@pytest.mark.parametrize("query", ["caf\udce9 bababa", "\ud83d bababa", "bababa\udcff\udcfe"])
@pytest.mark.parametrize("hybrid", [[], ["--hybrid"]])
def test_a_query_that_is_not_utf8_finds_what_its_words_do(run: Path, call: Call, query: str, hybrid: list[str]) -> None:
    ended = call("two-tower", "search", run, query, "--json", *hybrid)
    assert ended.status == 0, ended.err
    answer = json.loads(ended.out.splitlines()[-1])
    assert "\N{REPLACEMENT CHARACTER}" in answer["query"]
    assert answer["hits"]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_what_a_terminal_cannot_show_is_replaced(
    run: Path, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Every command that prints texts or bars; documents stay whole."""
    from two_tower import cli

    titles = [json.loads(line)["title"] for line in (collection / "corpus.jsonl").read_text().splitlines()]
    for arguments in (["search", str(run), f"{titles[0]} 数 …"], ["search", str(run), f"{titles[0]} 数 …", "--json"],
                      ["compare", str(run)], ["compare", str(run), "--json"], ["evaluate", str(run)],
                      ["data", "inspect", "data=beir", f"data.path={collection}"], ["doctor", str(run)]):  # fmt: skip
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["two-tower", *arguments])
            patch.setattr(sys, "stdout", out)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        assert ended.value.code == 0, arguments
        out.flush()
        text = out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert len(text) > 20
        if "--json" in arguments:
            document = json.loads(text.splitlines()[-1])
            assert "数" in document.get("query", "数")


def test_any_name_as_typed_and_what_is_printed_can_be_pasted(call: Call, tmp_path: Path) -> None:
    """Letters, brackets, commas and numbers in files, columns and folders, from training to a search."""
    file = tmp_path / "Download (1)" / "l'été, [a]=1.csv"
    file.parent.mkdir()
    rows = [f"{word(3 * i)} {word(i)} bitte,{word(3 * i)} {word(90 + i)} your question" for i in range(30)]
    file.write_text("\n".join(['"Frage, kurz",2024_06', *rows]), encoding="utf-8")
    data = ["data=pairs", f"data.path={file.relative_to(tmp_path)}", "data.query_column=Frage, kurz"]
    data += ["data.positive_column=2024_06", "data.dev_share=0.3", "data.batch_size=8"]
    small = ["tokenizer.min_frequency=1", "tower.dim=4", "trainer=cpu", "trainer.max_steps=2"]

    def pasted(command: str) -> str:
        program, *arguments = shlex.split(command.removeprefix("python "))
        ended = call(program, *arguments)
        assert (ended.status, ended.err) == (0, "")
        return ended.out

    def next_of(out: str) -> list[str]:
        (line,) = re.findall("^Next: (.*)$", out, re.MULTILINE)
        return line.split("   then   ")

    trained = call("train.py", *data, *small, "run_dir=läufe/2024_06 (neu)")
    assert (trained.status, trained.err) == (0, "")
    assert (tmp_path / "läufe" / "2024_06 (neu)" / "results.json").exists()
    embed, search = next_of(trained.out)
    assert next_of(pasted(embed))[0] == search
    assert "1  " in pasted(search)
    search, serve = next_of(pasted(f"{embed} 'output=[1], ~neu' index=flat"))
    assert "--index" in search
    found = pasted(search)
    assert "1  " in found
    assert next_of(found) == [serve]
    file.write_text(file.read_text(encoding="utf-8").replace("your", word(1) + word(2)), encoding="utf-8")
    search, _ = next_of(pasted(shlex.join(["two-tower", "update", "läufe/2024_06 (neu)", "1e5", *data])))
    assert shlex.split(search)[:3] == ["two-tower", "search", "1e5"]
    assert "1  " in pasted(search)


@pytest.mark.parametrize("command", ["search", "search --hybrid", "doctor", "evaluate", "export", "embed.py"])
def test_a_folder_whose_name_is_not_utf8(run: Path, tmp_path: Path, call: Call, command: str) -> None:
    """It works, or is one sentence."""
    folder = tmp_path / os.fsdecode(b"r\xff")
    try:
        folder.symlink_to(run)
    except OSError:
        pytest.skip("the file system takes only UTF-8")
    name, *options = command.split()
    if name == "embed.py":
        ended = call(name, f"run={folder}")
    else:
        more = {"search": ["bababa"], "export": [tmp_path / "out"]}.get(name, [])
        ended = call("two-tower", name, folder, *more, *options)
    assert ended.status in (0, 2)
    assert ended.status == 0 or ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "variables",
    [
        {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/nonexistent", "JSM_NAMESPACE_LOCAL_RANK": "1"},
        {"MASTER_ADDR": "x", "MASTER_PORT": "1", "RANK": "3", "WORLD_SIZE": "4", "NODE_RANK": "1"},
        {"OMPI_COMM_WORLD_RANK": "2", "TORCHELASTIC_RUN_ID": "1", "GROUP_RANK": "1", "LOCAL_RANK": "x"},
    ],
)  # fmt: skip
def test_other_schedulers_do_nothing_to_one_device(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert fit(collection, tmp_path / "run", "trainer.max_epochs=1", "tower.dim=4")["epochs"] == 1
    assert (tmp_path / "run" / "metrics.csv").stat().st_size > 100


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    write_text(path, "before")
    monkeypatch.setattr(os, "fsync", refuses_number(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left") as raised:
        write_text(path, "after")
    assert path.read_text() == "before"
    assert str(path.parent) in str(raised.value.filename)
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


def refuses_number(number: int) -> Callable[[int], None]:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    return refuse
