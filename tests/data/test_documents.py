"""`data=documents`: every kind of document becomes passages with a place, and queries that are held back from them."""

import json
from pathlib import Path

import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import check_refused, values

from two_tower.data._sections import length, sections
from two_tower.data.documents import Documents

GUIDE = """---
title: "The guide"
---
# The guide

Welcome to the guide of the oven, which [the maker](https://example.org/a_(b)) wrote for everybody who bakes at home.

## How to clean it?

Let it cool. Then wipe it with a cloth.

## Heat

<!-- nothing to see -->
Some words.

### Fan

The fan spreads the heat.

```
## no heading
```

## Empty

# The guide
Twice.
"""
PAGE = """<html><head><title>Oven – shop</title><style>p {}</style></head><body><nav>Home</nav>
<main><section id="safe"><h1>Safety<a href="#safe">¶</a></h1>
<p>Do not <b>touch</b> the <a href="x">door</a>.</p></section>
<h2><a name="child"></a>Children</h2><ul><li>Watch them.</li></ul>
<script>alert(1)</script></main><footer>©</footer></body></html>
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "my docs"
    (folder / "sub" / ".hidden").mkdir(parents=True)
    (folder / "guide.md").write_text(GUIDE, encoding="utf-8")
    (folder / "sub" / "safety.html").write_text(PAGE, encoding="cp1252")
    (folder / "sub" / "notes-of_June.txt").write_text("Größe zählt.\r\n\r\n" + "Ein Satz. " * 40, encoding="cp1252")
    (folder / "faq.csv").write_text("question,answer,url\nWhere is it sold?,In shops.,http://a.b/c\nWhy?,Because.,\n")
    (folder / "more.jsonl").write_text(json.dumps({"id": "x1", "title": "T", "text": "A row."}) + "\n")
    (folder / "settings.json").write_text('{"debug": true}')
    (folder / "sub" / ".hidden" / "secret.md").write_text("secret")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    run = folder / "runs" / "demo"
    run.mkdir(parents=True)
    for name in ("environment.json", "config.yaml", "report.md"):
        (run / name).write_text("# not a document")
    return folder


def passages(source: Documents) -> dict[str, dict[str, str]]:
    return {row["id"]: row for batch in source.search_corpus() for row in batch.to_pylist()}


def test_each_kind_of_document_becomes_passages_with_a_place(folder: Path) -> None:
    source = Documents(folder)
    found = passages(source)
    root = folder.as_uri()
    shown = {name: (row["title"], row["text"], json.loads(row["fields"])["url"]) for name, row in found.items()}
    welcome = "Welcome to the guide of the oven, which the maker wrote for everybody who bakes at home."
    fan = "The fan spreads the heat.\n\n```\n## no heading\n```"
    assert shown["guide.md#the-guide"] == ("The guide", welcome, f"{root}/guide.md#the-guide")
    assert shown["guide.md#how-to-clean-it"][:2] == (
        "The guide › How to clean it?", "Let it cool. Then wipe it with a cloth.",
    )  # fmt: skip
    assert shown["guide.md#heat"][:2] == ("The guide › Heat", "Some words.")
    assert shown["guide.md#fan"][:2] == ("The guide › Heat › Fan", fan)
    assert shown["guide.md#the-guide-1"][1] == "Twice."
    assert shown["sub/safety.html#safe"] == (
        "Oven – shop › Safety", "Do not **touch** the door.", f"{root}/sub/safety.html#safe",
    )  # fmt: skip
    assert shown["sub/safety.html#child"][1] == "* Watch them."
    assert found["sub/notes-of_June.txt"]["title"] == "notes of June"
    assert found["sub/notes-of_June.txt"]["text"].startswith("Größe zählt.\n\nEin Satz.")
    (sold,) = (row for row in shown.values() if row[1] == "In shops.")
    assert sold == ("Where is it sold?", "In shops.", "http://a.b/c")
    assert shown["more.jsonl#x1"][:2] == ("T", "A row.")
    assert not any("secret" in row["text"] or "not a document" in row["text"] for row in found.values())
    what = source.found()
    assert what.files == {".md": 1, ".html": 1, ".txt": 1, ".csv": 1, ".jsonl": 1}
    assert what.others == ["picture.png", "settings.json"]


def test_what_became_a_query_is_held_back_from_training_only(folder: Path) -> None:
    source = Documents(folder)
    asked = {row["text"]: row["id"] for split in source.splits() for row in source.queries(split).to_pylist()}
    assert {"How to clean it?", "Where is it sold?", "Why?"} <= {*asked}
    assert "The guide" not in asked, "a heading of two sections does not tell which is meant"
    trained = {row[0]: row for row in values(source.corpus())}
    assert trained["guide.md#how-to-clean-it"][1] == "The guide"
    judged = {(q, d) for split in source.splits() for q, d, _ in values(source.qrels(split))}
    assert (asked["How to clean it?"], "guide.md#how-to-clean-it") in judged
    assert trained.keys() == passages(source).keys() >= {document for _, document in judged}
    texts = [{row["text"] for row in source.queries(split).to_pylist()} for split in source.splits()]
    assert not texts[0] & texts[1]
    assert texts[0]
    assert texts[1]


def test_a_first_sentence_is_a_query_where_there_is_no_heading(tmp_path: Path) -> None:
    rest = "It goes on about bread and butter for a while, so that enough is left to find it by, as one would hope."
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text(f"Loaf number {i} is baked at night. {rest}")
    source = Documents(tmp_path)
    asked = {row["text"] for split in source.splits() for row in source.queries(split).to_pylist()}
    assert asked == {f"Loaf number {i} is baked at night." for i in range(3)}
    # What is left of them is equal, but the whole passages are not copies.
    assert {text for _, _, text in values(source.corpus())} == {rest}


def test_the_first_part_of_a_section_answers_its_heading(tmp_path: Path) -> None:
    sentences = [f"Step {i} of it is to knead the dough for quite a while." for i in range(12)]
    (tmp_path / "bread.md").write_text(f"# Bread\n\n## How to bake\n\n{' '.join(sentences)}\n\n## End\n\nEnd.")
    source = Documents(tmp_path, passage_words=60)
    judged = [values(source.qrels(split)) for split in source.splits()]
    texts = {row["id"]: row["text"] for split in source.splits() for row in source.queries(split).to_pylist()}
    asked = {document: texts[query] for rows in judged for query, document, _ in rows}
    assert asked == {
        "bread.md#how-to-bake": "How to bake", "bread.md#how-to-bake:2": sentences[4],
        "bread.md#how-to-bake:3": sentences[8],
    }  # fmt: skip
    trained = {name: (title, text) for name, title, text in values(source.corpus())}
    assert trained["bread.md#how-to-bake:2"] == ("Bread", " ".join(sentences[5:8]))
    assert passages(source)["bread.md#how-to-bake:2"]["text"] == " ".join(sentences[4:8])


def test_ids_stay_when_other_parts_change(folder: Path) -> None:
    before = passages(Documents(folder))
    (folder / "guide.md").write_text(GUIDE.replace("## Heat", "## New\n\nNew words.\n\n## Heat"), encoding="utf-8")
    (folder / "a.md").write_text("first")
    after = passages(Documents(folder))
    assert {*after} - {*before} == {"guide.md#new", "a.md"}
    assert all(after[name] == row for name, row in before.items())
    assert Documents(folder).fingerprint() == Documents(folder).fingerprint() != Documents(folder, 100).fingerprint()


def test_copies_are_left_out_and_links_may_lead_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One\n\nThe same words.\n\n# Two\n\nThe same words.\n")
    (tmp_path / "b.md").write_text("# One\n\nThe  same words.\n")
    found = passages(Documents(tmp_path, base_url="https://docs.example.org/v1/"))
    assert {name: json.loads(row["fields"]) for name, row in found.items()} == {
        "a.md#one": {"url": "https://docs.example.org/v1/a.md#one", "document": "a.md"},
        "a.md#two": {"url": "https://docs.example.org/v1/a.md#two", "document": "a.md"},
    }


def test_odd_names_are_quoted_in_links_alone(tmp_path: Path) -> None:
    (tmp_path / "C# 100%.md").write_text('# A b\n\n<a id="x"></a>Text of <NAME>.\n')
    source = Documents(tmp_path)
    (row,) = passages(source).values()
    fields = {"url": f"{tmp_path.as_uri()}/C%23%20100%25.md#a-b", "document": "C# 100%.md"}
    assert (row["id"], row["text"], json.loads(row["fields"])) == ("C# 100%.md#a-b", "Text of <NAME>.", fields)
    assert list(source.corpus())


def test_pdf_pages_know_their_number_and_chapter(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter()
    for words in ("Bread and but-\nter.", "More of it."):
        page = writer.add_blank_page(200, 200)
        lines = "".join(f"({line}) Tj 0 -12 Td " for line in words.split("\n"))
        stream = pypdf.generic.DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 100 Td {lines} ET".encode())
        font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
        name = pypdf.generic.NameObject
        font = pypdf.generic.DictionaryObject({name(key): name(value) for key, value in font.items()})
        page[name("/Resources")] = pypdf.generic.DictionaryObject(
            {name("/Font"): pypdf.generic.DictionaryObject({name("/F1"): font})}
        )
        page[name("/Contents")] = writer._add_object(stream)
    writer.add_outline_item("Chapter", 1)
    writer.add_metadata({"/Title": "The book"})
    writer.write(tmp_path / "book.pdf")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    found = passages(Documents(tmp_path))
    assert {name: (row["title"], row["text"]) for name, row in found.items()} == {
        "book.pdf#page=1": ("The book", "Bread and butter."),
        "book.pdf#page=2": ("The book › Chapter", "More of it."),
    }
    check_refused(lambda: list(Documents(tmp_path / "broken.pdf").corpus()), r"broken\.pdf is no PDF that can be read")


def test_mistakes_are_named(tmp_path: Path) -> None:
    check_refused(lambda: Documents(tmp_path / "absent"), "does not exist")
    check_refused(lambda: list(Documents(tmp_path).corpus()), "holds no document of a known kind")
    (tmp_path / "empty.md").write_text("# Only a heading\n")
    check_refused(lambda: list(Documents(tmp_path).corpus()), "holds no text in its 1 files")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    check_refused(lambda: list(Documents(tmp_path / "t.csv").corpus()), "no column that is called like a text")
    (tmp_path / "one.md").write_text("One passage is not enough.")
    check_refused(lambda: Documents(tmp_path).queries("dev"), "too little text")
    with pytest.raises(ValueError, match="passage_words=3 must be at least 20"):
        Documents(tmp_path, passage_words=3)


def test_long_parts_are_cut_between_paragraphs_lines_and_sentences() -> None:
    paragraph = "A sentence of five words. " * 10
    texts = [each.text for each in sections(f"# H\n\n{paragraph}\n\n{paragraph}\n\n- item one\n- item two\n", 60)]
    assert [length(text) for text in texts] == [50, 56]
    assert texts[1].endswith("- item one\n- item two")
    assert [length(each.text) for each in sections("东" * 100, 20)] == [20, 20, 10]
    assert [each.part for each in sections(paragraph * 3, 60)] == [0, 1, 2]


# No signs of headings, which are left out where nothing stands below them, nor of markup.
WORDS = st.text("ab \n*`|>{}[]().!?1_~&东", max_size=200)


@given(WORDS, st.integers(20, 40))
def test_any_text_is_cut_without_loss(text: str, most: int) -> None:
    found = list(sections(text, most))
    assert all(each.text.strip() and length(each.text) <= most + 4 for each in found)  # signs of a cut word count
    letters = "".join(each.text + "".join(each.headings) for each in found)
    for letter in "ab东":
        assert letters.count(letter) == text.count(letter)
