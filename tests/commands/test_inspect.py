"""``two-tower data inspect``: a page for people, one JSON document for programs, one sentence for mistakes."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rich
from conftest import write_collection
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from two_tower.config.compose import composed
from two_tower.config.saved import CONF
from two_tower.data.base import LOADER_KEYS
from two_tower.doctor.facts import inspect
from two_tower.errors import UserError

Call = Callable[..., Any]  # see conftest.py in this folder
INSPECT = ("two-tower", "data", "inspect")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A collection with a bad row, two leaked queries, unknown words and a copy."""
    folder = write_collection(tmp_path / "damaged")
    queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    queries[0]["text"], queries[6]["text"] = queries[2]["text"], queries[3]["text"]
    (folder / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in queries))
    passages = (folder / "corpus.jsonl").read_text().splitlines()
    copy = {**json.loads(passages[9]), "_id": "copy"}
    (folder / "corpus.jsonl").write_text("\n".join([*passages, json.dumps(copy), "{no json}"]) + "\n")
    return folder


def test_a_page_for_people(damaged: Path, call: Call) -> None:
    ended = call(*INSPECT, "data=beir", f"data.path={damaged}", "data.max_bad_rows=0.01")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].startswith("damaged: 241 passages, a vocabulary of ")
    assert max(len(line) for line in lines if damaged.name not in line) <= 80
    assert all(line == line.rstrip() for line in lines)
    rows = {line[:29].strip(): line[29:].split() for line in lines}
    assert rows["texts"] == ["241", "160", "40", "40"]
    assert rows["equal to another one"] == ["2", "0", "0", "0"]
    assert rows["most"] == ["19", "3", "3", "3"]
    assert rows["judgements"] == ["160", "40", "40"]
    assert rows["queries also in training"] == ["–", "2", "0"]
    assert rows["with the same passage"] == ["–", "0", "0"]
    assert any(re.fullmatch(r" +16–23  █+ 100.0 %", line) for line in lines)
    assert any(re.fullmatch(r" +3( +█+ 100.0 %){3}", line) for line in lines)
    assert "Triplets of ids: 160" in lines
    text = " ".join(ended.out.split())
    assert f"- 1 of {damaged / 'corpus.jsonl'} with malformed JSON" in text
    warnings = text.partition(" Warnings - ")[2].split(" - ")
    assert [warning.split(" of ")[0] for warning in warnings] == ["1 rows", "2", "2"]
    assert warnings[2].partition(" Inspected ")[0] == (
        "2 of 40 dev queries are also training queries, 0 with the same relevant passage (q0, q6): figures on dev "
        "are too good. Remove them from one of the two splits."
    )


def test_a_clean_collection_says_so(collection: Path, call: Call) -> None:
    ended = call(*INSPECT, "data=beir", f"data.path={collection}")
    assert (ended.status, ended.err) == (0, "")
    *_, verdict, blank, pace, command = ended.out.splitlines()
    assert (verdict, blank) == ("Nothing to warn of.", "")
    assert re.fullmatch(r"Inspected \(\d+\.\d s, [\d,]+ passages/s\)\.", pace)
    assert command == f"Next: python train.py data=beir data.path={collection}"
    assert "Warnings" not in ended.out


def test_one_json_document(damaged: Path, call: Call) -> None:
    ended = call(*INSPECT, "data=beir", f"data.path={damaged}", "data.max_bad_rows=0.01", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.count("\n") == 1
    facts = json.loads(ended.out)
    assert " ".join(facts) == "source vocabulary passages splits triplets bad_rows notices warnings"
    assert [w["id"] for w in facts["warnings"]] == ["bad_rows", "duplicate_passages", "leakage"]
    assert facts["notices"] == []  # it is all among the facts


def test_other_notices_are_passed_on_and_the_log_is_as_before(
    damaged: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from two_tower.cache import notice
    from two_tower.data.beir import Beir

    read = Beir.corpus

    def corpus(self: Beir) -> Any:  # noqa: ANN401
        notice("Something strange.")
        return read(self)

    monkeypatch.setattr(Beir, "corpus", corpus)
    log = logging.getLogger("two_tower")
    before = list(log.handlers), log.propagate
    ended = call(*INSPECT, "data=beir", f"data.path={damaged}", "data.max_bad_rows=0.01", "data.name=other")
    assert (ended.status, ended.err) == (0, "")
    assert "\nSaid while reading\n- Something strange.\n" in ended.out
    assert (list(log.handlers), log.propagate) == before


def test_a_split_that_is_not_there_is_no_obstacle(damaged: Path, call: Call) -> None:
    (damaged / "qrels" / "dev.tsv").unlink()
    ended = call(*INSPECT, "data=beir", f"data.path={damaged}", "data.max_bad_rows=0.01", "--json")
    assert ended.status == 0
    assert "no_validation_split" in [w["id"] for w in json.loads(ended.out)["warnings"]]
    ended = call(*INSPECT, "data=beir", f"data.path={damaged}", "data.max_bad_rows=0.01", "data.validation_split=test")
    assert "there is no split" not in ended.out


MISTAKES = {
    "data=bier": r"^data=bier does not exist; did you mean 'beir'\?",
    "data=beir data.pth=x": r"^data.pth does not exist; did you mean 'data.path'\?",
    "data=beir": "^data.path is not set and has no default: add data.path=VALUE",
    "data=beir data.path=nowhere": "nowhere is no folder",
    "data=beir data.path=${nothing}": "^data.path cannot be used: Interpolation key 'nothing' not found",
    "tower=average,gru": "^tower=average,gru has several values: choose one of them",
    "~data": "^~data leaves data without a choice; valid: beir, ",
    "--jsn": "^No such option: --jsn",
}


@pytest.mark.parametrize(("number", "arguments"), enumerate(MISTAKES))
def test_a_mistake_is_told_in_one_sentence(number: int, arguments: str, call: Call) -> None:
    ended = call(*INSPECT, *arguments.split(), *["--json"] * (number % 2))
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert re.search(MISTAKES[arguments], ended.err), ended.err


def test_mistakes_in_the_data_are_told_in_one_sentence(damaged: Path, call: Call) -> None:
    ended = call(*INSPECT, "data=beir", f"data.path={damaged}")
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(r".*corpus.jsonl, row 242: malformed JSON .* more than data.max_bad_rows.*\n", ended.err)


def test_mistyped_commands(call: Call) -> None:
    ended = call("two-tower", "data", "inspct")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "two-tower data inspct does not exist; did you mean 'inspect'? (valid: inspect).\n"
    assert call("two-tower", "data").err == "Missing command; see --help.\n"


def test_the_parts_of_a_configuration_are_those_of_train() -> None:
    overrides = ["data=pairs", "data.path=x", "tower.dim=12", "data.dev_seed=${tower.dim}"]
    config = composed(overrides, {"data": LOADER_KEYS, "loss": {}})
    assert set(config) == {"data", "loss"}
    assert (config["data"]["path"], config["data"]["dev_seed"]) == ("x", 12)
    assert config["data"]["batch_size"] is None
    assert composed([], {"tokenizer": {}})["tokenizer"]["split_camel_case"] is True  # pydocs chooses another


def test_composing_leaves_no_trace_and_minds_none() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert composed([], {"loss": {}})["loss"]
    assert composed([], {"loss": {}})["loss"]
    assert not GlobalHydra.instance().is_initialized()
    with pytest.raises(UserError):
        composed(["loss=in_bach"], {"loss": {}})
    assert not GlobalHydra.instance().is_initialized()


def test_inspect_needs_neither_a_run_nor_the_trainer(collection: Path, tmp_path: Path) -> None:
    code = """
import sys
from two_tower.cli import main
try:
    main()
finally:
    print(*({"lightning", "faiss", "bm25s"} & {*sys.modules}), file=sys.stderr)
"""
    command = [sys.executable, "-c", code, *INSPECT[1:], "data=beir", f"data.path={collection}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stderr == "\n"
    assert json.loads(done.stdout)["passages"]["count"] == 240
    assert list(tmp_path.iterdir()) == []


def test_what_is_shown_meanwhile_is_not_among_the_document(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def shows_progress(overrides: list[str]) -> dict[str, Any]:
        rich.get_console().print("progress")
        if overrides:
            raise UserError("A mistake")
        return {}

    monkeypatch.setattr("two_tower.doctor.facts.inspect", shows_progress)
    assert call(*INSPECT, "--json") == (0, "{}\n", "progress\n")
    assert call(*INSPECT, "--json", "x=1") == (2, "", "progress\nA mistake.\n")
    assert rich.get_console().stderr is False


def test_the_function_gives_what_the_command_prints(collection: Path, call: Call) -> None:
    overrides = ["data=beir", f"data.path={collection}"]
    assert inspect(overrides) == json.loads(call(*INSPECT, *overrides, "--json").out)
