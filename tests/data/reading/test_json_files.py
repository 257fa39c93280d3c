"""JSON in any form gives the same rows; numbers are exact or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import check_refused, values

from two_tower.data.passages import Passages
from two_tower.data.reading import content

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FORMS: dict[str, Any] = {
    "lines": lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
    "array": lambda rows: json.dumps(rows),
    "array after empty lines": lambda rows: f"\n \n{json.dumps(rows)}",
    "indented array": lambda rows: json.dumps(rows, indent=2),
    "array of lines": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
    "indented objects": lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows),
    "objects on one line": lambda rows: "".join(map(json.dumps, rows)),
}


@given(st.lists(text, min_size=1, max_size=5), st.sampled_from([*FORMS]), st.integers(1, 50))
def test_all_forms_give_the_same(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], form: str, size: int
) -> None:
    rows = [{"id": number, "text": f"x{text}", "metadata": {"a": [text]}} for number, text in enumerate(texts)]
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(FORMS[form](rows), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "CHUNK_BYTES", 100 * size)
        assert values(Passages(path).corpus()) == [(str(row["id"]), "", row["text"]) for row in rows]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"id": "1", "text": "a"}, {"id": "2", "te', r"row 2: malformed JSON \(Unterminated string"),
        ('[{"id": "1", "text": "a"}', r"row 2: malformed JSON \(the array has no end\)"),
        ('{\n"id": "1",\n"text": "a"\n}\n{\n"id": x\n}', r"row 2: malformed JSON \(Expecting value\)"),
        ('{"id": 7.0, "text": "x"}\n', "Column 'id' of .* holds double, not text or whole numbers"),
        ('{"id": true, "text": "x"}\n', "Column 'id' of .* holds bool, not text"),
        ('{"id": "1", "text": 1.5}\n', "Column 'text' of .* holds double, not text"),
        ('{"id": "1", "text": "a"}\n{"id": 2.0, "text": "b"}\n', r"row 2: field that is no text \(id 2\.0\)"),
        ('{"nr": "1", "worte": "a"}\n', r"row 1: has the fields nr, worte; expected a text .*set data\.text_column"),
        ('{"data": [{"id": "1", "text": "a"}]}', "has the fields data; expected a text"),
    ],
    ids=range(9),
)
def test_a_mistake_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    check_refused(lambda: list(Passages(tmp_path / "a.json").corpus()), message)


def test_large_ids_are_exact(tmp_path: Path) -> None:
    ids = ["12345678901234567890123", "9007199254740993", "-7"]
    (tmp_path / "a.jsonl").write_text("".join(f'{{"id": {i}, "text": "x"}}\n' for i in ids))
    assert [row[0] for row in values(Passages(tmp_path / "a.jsonl").corpus())] == ids


def test_a_folder_of_files(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"doc{number}.json").write_text(json.dumps({"id": f"d{number}", "text": "x"}, indent=1))
    (tmp_path / "README.md").write_text("not read")
    (tmp_path / "later.csv").write_text("id,text\ne1,y\n")
    assert [row[0] for row in values(Passages(tmp_path).corpus())] == ["d0", "d1", "d2", "e1"]
    (tmp_path / "z.jsonl").write_text('{"x": 1}\n')
    check_refused(lambda: Passages(tmp_path), r"z\.jsonl, row 1: has the fields x; expected a text")


def test_rows_without_ids_are_told_apart_by_their_files(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"text": "x"}\n{"text": "y"}\n')
    assert [row[0] for row in values(Passages(tmp_path).corpus())] == [
        "a.jsonl:1", "a.jsonl:2", "b.jsonl:1", "b.jsonl:2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.jsonl", "id,text\n1,x\n2,y\n", ["x", "y"]), ("a.csv", '{"id": "1", "text": "x, y"}\n', ["x, y"]),
        ("a.tsv", "[1] foo\tbar baz.\n[2] foo\tqux\n", ["bar baz.", "qux"]), ("a", '[{"text": "x"}]', ["x"]),
        ("a.csv", 'id,text\n1,"{x}"\n2,[y]\n', ["{x}", "[y]"]),
    ],
)  # fmt: skip
def test_names_of_files_do_not_decide(tmp_path: Path, name: str, content: str, texts: list[str]) -> None:
    (tmp_path / name).write_text(content)
    assert [text for *_, text in values(Passages(tmp_path / name).corpus())] == texts
