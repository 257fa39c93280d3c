"""docs/data.md: every command in it is composed, and its source built and read on generated files of these names."""

import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, composed, write_collection
from rows import check_refused, everything, pack, write_rows, write_text

from two_tower.config.saved import choices
from two_tower.loading import make_source

TEXT = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^    (python (?:train|embed)\.py.*?) *$", TEXT, re.MULTILINE)))
# What no test can reach: the hub, a collection that is downloaded, a harvest that takes long.
ELSEWHERE = ("data.path=OWNER/NAME", "data=ir_datasets", "data=pydocs")

DOCUMENTS = [{"_id": f"d{i}", "title": f"title {i}", "text": f"passage number {i}"} for i in range(120)]
QUERIES = [{"_id": f"q{i}", "text": f"query number {i}"} for i in range(120)]
SPLITS = {"train": range(80), "dev": range(80, 100), "test": range(100, 120)}


def write_pairs(folder: Path) -> None:
    rows = [(QUERIES[i]["text"], DOCUMENTS[i]["text"], DOCUMENTS[i - 1]["text"]) for i in range(len(QUERIES))]

    def named(*names: str) -> list[dict[str, Any]]:
        return [dict(zip(names, row, strict=False)) for row in rows]

    write_rows(folder / "faq.csv", named("question", "answer"))
    write_rows(folder / "faq.jsonl", named("frage", "antwort", "falsch"))
    write_rows(folder / "mine.jsonl", [{"id": d["_id"], "text": d["text"]} for d in DOCUMENTS])
    write_rows(folder / "triplets/train.parquet", named("anchor", "positive", "negative"))


def write_ms_marco(folder: Path) -> None:
    for split, name in (("train", "train"), ("dev", "validation")):
        rows = [
            {"query_id": i, "query": QUERIES[i]["text"], "passages": {
                "is_selected": [1, 0], "passage_text": [DOCUMENTS[j]["text"] for j in (i, i - 1)], "url": ["", ""],
            }}
            for i in SPLITS[split]
        ]  # fmt: skip
        for version in ("v1.1", "v2.1"):
            write_rows(folder / f"ms_marco/{version}/{name}-00000-of-00001.parquet", rows)


def write_passage_ranking(folder: Path) -> None:
    files = {"collection.tsv": "".join(f"{i}\t{d['text']}\n" for i, d in enumerate(DOCUMENTS))}
    for split, name in (("train", "train"), ("dev", "dev.small")):
        files[f"queries.{name}.tsv"] = "".join(f"{i}\t{QUERIES[i]['text']}\n" for i in SPLITS[split])
        files[f"qrels.{name}.tsv"] = "".join(f"{i}\t0\t{i}\t1\n" for i in SPLITS[split])
    folder = folder / "msmarco"
    folder.mkdir()
    pack(folder / "collectionandqueries.tar.gz", {name: text.encode() for name, text in files.items()})
    for name, line, split in (
        ("qidpidtriples.train.full.2.tsv.gz", "{0}\t{0}\t{1}\n", "train"),
        ("triples.train.small.tsv", "query {0}\tpassage {0}\tpassage {1}\n", "train"),
        ("msmarco-test2019-queries.tsv", "{0}\tquery {0}\n", "test"),
        ("2019qrels-pass.txt", "{0} Q0 {0} 3\n", "test"),
    ):
        write_text(folder / name, "".join(line.format(i, i + 1) for i in SPLITS[split]))


def write_tevatron(folder: Path) -> None:
    entries = [{"docid": d["_id"], "title": d["title"], "text": d["text"]} for d in DOCUMENTS]
    both: dict[str, list[dict[str, Any]]] = {"passages": [], "document_ids": []}
    for i, query in enumerate(QUERIES):
        for kind, values in (("passages", entries), ("document_ids", [entry["docid"] for entry in entries])):
            row = {"query_id": query["_id"], "query": query["text"]}
            both[kind].append({**row, f"positive_{kind}": [values[i]], f"negative_{kind}": [values[i - 1]]})
    write_rows(folder / "tevatron/train.jsonl.gz", both["passages"])
    write_rows(folder / "tevatron-ids/train.jsonl", both["document_ids"])
    write_rows(folder / "tevatron-corpus/train.jsonl", entries)
    write_rows(folder / "scifact/corpus/corpus.jsonl", DOCUMENTS)
    write_rows(folder / "scifact/queries/queries.jsonl", QUERIES)
    for split in ("train", "test"):
        judged = "".join(f"q{i}\td{i}\t1\n" for i in SPLITS[split])
        write_text(folder / f"scifact-qrels/{split}.tsv", f"query-id\tcorpus-id\tscore\n{judged}")


def write_handbook(folder: Path) -> None:
    write_text(folder / "handbook" / "all.md", "".join(f"# {d['title']}\n\n{d['text']}\n\n" for d in DOCUMENTS))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, hub_cache: None) -> Path:
    """A folder with everything that the commands name."""
    folder = tmp_path_factory.mktemp("place")
    write_collection(folder / "mine")
    for make in (write_pairs, write_ms_marco, write_passage_ranking, write_tevatron, write_handbook):
        make(folder)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_reads_what_it_names(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    _, program, *overrides = shlex.split(command)
    config = composed(*overrides, program=program.removesuffix(".py"))
    if any(part in command for part in ELSEWHERE) or command.endswith("data=msmarco_v1_1"):
        return
    source = make_source(config["data"])
    assert sum(map(len, source.corpus())) >= 100
    if program == "train.py":
        assert {"train", "dev"} <= set(source.splits())
    for split in source.splits():
        assert len(source.queries(split)) > 0
        assert len(source.qrels(split)) > 0
    if "negatives=given" in command:
        triplets = source.triplets() or source.text_triplets()
        assert triplets is not None
        assert sum(map(len, triplets)) > 50


FILES = re.findall(r"^\| `(\w+)` \| `([\w./]+)`: [^|]*\| (`.*`) \|$", TEXT, re.MULTILINE)
# What a folder needs beside the file of the example.
BESIDE = {
    "beir": {
        "corpus.jsonl": '{"_id": "d1", "text": "A tree, tall."}\n', "queries.jsonl": '{"_id": "q1", "text": "oak"}\n',
        "qrels/dev.tsv": "q1\td1\t1\n",
    },
    "msmarco_passage": {"queries.dev.small.tsv": "1\toak\n", "qrels.dev.small.tsv": "1\t0\t7\t1\n"},
}  # fmt: skip


@pytest.mark.parametrize(("data", "name", "example"), FILES, ids=range(len(FILES)))
@pytest.mark.usefixtures("hub_cache")
def test_the_examples_of_files_are_read(data: str, name: str, example: str, tmp_path: Path) -> None:
    for other, text in BESIDE.get(data, {}).items():
        if other.partition(".")[0] != re.split(r"[./]", name)[0]:
            write_text(tmp_path / other, text)
    lines = [line.strip("`").replace("⇥", "\t").replace("\\|", "|") for line in example.split("<br>")]
    write_text(tmp_path / name, "\n".join(lines))
    folder = data in BESIDE or "/" in name
    keys = ["data.query_column=Frage", "data.positive_column=Antwort"] if "Frage" in example else []
    path = tmp_path / ("" if data in BESIDE else name.partition("/")[0] if folder else name)
    source = make_source(composed(f"data={data}", *keys, f"data.path={path}")["data"])
    assert "A tree, tall." in [row["text"] for batch in source.corpus() for row in batch.to_pylist()]
    if data in ("pairs", "huggingface", "beir") and "corpus" not in name:
        split = "dev" if data == "beir" else "train"
        assert [row["grade"] for row in source.qrels(split).to_pylist()] == [1]
        assert len(source.queries(split)) == 1


def test_every_kind_of_file_has_an_example() -> None:
    assert len(FILES) == len(re.findall(r"^\| `\w+` \| `[\w./]+`:", TEXT, re.MULTILINE)) > 15
    assert {data for data, *_ in FILES} == {"pairs", "passages", "beir", "huggingface", "msmarco_passage"}


def test_every_source_has_commands() -> None:
    assert len(COMMANDS) > 15
    own = {"beir", "huggingface", "ir_datasets", "msmarco_passage", "msmarco_v1_1", "msmarco_v2_1", "pairs", "pydocs"}
    assert own <= {*choices("data")}  # a contributor's may do without
    for choice in own:
        assert any(f"data={choice} " in f"{command} " for command in COMMANDS), choice
        assert f"`{choice}`" in TEXT


def test_the_source_of_the_example(tmp_path: Path) -> None:
    section = TEXT.partition("## A source of your own")[2]
    code, settings = (section.partition(f"```{kind}\n")[2].partition("```")[0] for kind in ("python", "yaml"))
    names: dict[str, Any] = {}
    exec(code, names)
    keys = yaml.safe_load(settings)
    assert keys.keys() - {"defaults", "_target_"} == inspect.signature(names["Mine"]).parameters.keys()
    path = str(tmp_path / "mine.txt")
    write_text(Path(path), "".join(f"question {i}|answer {i}\n" for i in range(1, 11)) + "nothing\n")
    source = names["Mine"](path, max_bad_rows=0.1)
    passages, train_judged, train, dev_judged, dev, *triplets = everything(source)
    assert passages == [(f"d{i}", "", f"answer {i}") for i in range(1, 11)]
    assert len(train) == len(train_judged) == 8
    assert (dev, dev_judged) == ([("q5", "question 5"), ("q10", "question 10")], [("q5", "d5", 1), ("q10", "d10", 1)])
    assert triplets == [[], []]
    assert source.fingerprint() == names["Mine"](path, max_bad_rows=0.1).fingerprint()
    check_refused(lambda: names["Mine"](path).queries("dev"), "row 11: no bar; 1 of 11 rows are bad")
