"""The harvest's rules on small generated packages; caching; one harvest of what is really installed."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import check_refused, check_split_refused, everything, values

from two_tower.data._docstrings import Doc, read_module, split_docstring
from two_tower.data.base import CORPUS
from two_tower.data.pydocs import PyDocs, _source_files, drop_copies

HARVEST = "two_tower.data.pydocs._harvest"
BODY = "It takes one argument and gives back a number that tells how many there were of them before the call."
OTHER = "Nothing here looks like any other text, because all words of it were written for this one test alone."


def docstring(summary: str, body: str = BODY) -> str:
    return f'"""{summary}\n\n    {body}\n    """'


def parse(tmp_path: Path, source: str, module: str = "zoo.cage") -> list[Doc]:
    path = tmp_path / "module.py"
    path.write_text(source)
    return read_module(module, str(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Feed it. Then wait.\n\n  Long\n  body.", ("Feed it.", "Then wait. Long body.")),
        ("\n    Feed it\n    well.\n\n    Body.\n    ", ("Feed it well.", "Body.")),
        ("feed(animal, *, food=None) -> Animal\n\nFeed an animal.\n\nBody.", ("Feed an animal.", "Body.")),
        ("See :func:`zoo.feed`\n\nFeed it.\n\nBody.", ("Feed it.", "Body.")),
        ("Feed it.\n\nBefore.\n\n>>> feed(1)\n2\n\nAfter.", ("Feed it.", "Before. After.")),
        ("Feed :class:`~zoo.A` or :py:func:`this <zoo.that>`.\n\n``x``, `y`_.", ("Feed zoo.A or this.", "x, y.")),
        ("Feed it.\n\nArgs\n----\n.. note:: careful", ("Feed it.", "Args careful")),
        ("Feed e.g. cats, i.e. small ones. Body.", ("Feed e.g. cats, i.e. small ones.", "Body.")),
        ("One line", ("One line", "")),
    ],
)  # fmt: skip
def test_a_docstring_is_cleaned_and_split(text: str, expected: tuple[str, str]) -> None:
    assert split_docstring(text) == expected


@given(st.text(st.sampled_from(" \n\t.`:>(){}aB~_<-=\u2028\ud800\"'"), max_size=60))
def test_any_docstring_becomes_one_line_of_valid_text(text: str) -> None:
    for part in split_docstring(text):
        assert part == " ".join(part.split())
        part.encode()


def test_public_names_of_a_module(tmp_path: Path) -> None:
    def named(head: str, summary: str, indent: str = "", body: str = BODY) -> str:
        return f"{indent}{head}:\n{indent}    {docstring(summary, body)}"

    source = [
        docstring("Cages of all kinds and sizes.").replace("\n    ", "\n"),
        named("def feed()", "Feed all the animals here."),
        named("async def wash()", "Wash all the animals here."),
        named("def _hide()", "Hide all the animals here."),
        named("class Cage", "Hold animals of one kind."),
        named("def open(self)", "Open the door of it.", "    "),
        named("def _lock(self)", "Lock the door of it.", "    "),
        named("class _Private", "Nobody should see this one."),
        named("def shown(self)", "Nobody should see this either.", "    "),
        "if True:",
        named("def late()", "Come late to the zoo.", "    "),
        named("def short()", "Too short."),
        named("def long()", "word " * 41),
        named("def bare()", "Has nearly no body at all.", body="Only this."),
        "def undocumented(): pass",
    ]
    assert {doc.name for doc in parse(tmp_path, "\n".join(source))} == {
        "zoo.cage", "zoo.cage.feed", "zoo.cage.wash", "zoo.cage.Cage", "zoo.cage.Cage.open", "zoo.cage.late",
    }  # fmt: skip


def test_documentation_added_by_calls(tmp_path: Path) -> None:
    text = f"Add numbers to each other.\n\n{BODY}\n"
    source = f'''
add_docstr(zoo.abs, """abs(x) -> y\n{text}""")
add_docstr_all("neg", """{text}""")
add_newdoc("zoo.core", "sort", """{text}""")
add_newdoc_for_scalar_type("int64", ["a", "b"], """{text}""")
conv = _add_docstr(builtin.conv, r"""{text}""" + """More at {{place}}.""".format(place=there) + other)
mean = _add_docstr(builtin.mean, """{text}Args:\n{{input}}\nn {{{{kept}}}}\n""".format(**common))
print("""{text}""")
'''
    bodies = {doc.name: doc.body for doc in parse(tmp_path, source) if doc.summary == "Add numbers to each other."}
    plain = dict.fromkeys(("zoo.abs", "torch.Tensor.neg", "zoo.core.sort", "zoo.int64"), BODY)
    assert bodies == {**plain, "zoo.cage.conv": f"{BODY} More at .", "zoo.cage.mean": f"{BODY} Args: n {{kept}}"}


def test_names_are_the_public_ones(tmp_path: Path) -> None:
    source = f"def feed():\n    {docstring('Feed all the animals here.')}"
    for module, names in (
        ("numpy._core.fromnumeric", ["numpy.fromnumeric.feed"]),
        ("torch._inductor.codegen", []),
        ("torch._torch_docs", ["torch.feed"]),
        ("__main__", ["__main__.feed"]),
    ):
        assert [doc.name for doc in parse(tmp_path, source, module)] == names


@pytest.mark.parametrize("content", [b"def (", b"x = '\0'", b"(" * 5000, b"x = '\xe9'"], ids=range(4))
def test_what_cannot_be_parsed_gives_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "module.py").write_bytes(content)
    assert read_module("zoo", str(tmp_path / "module.py")) == []
    assert read_module("zoo", str(tmp_path / "absent.py")) == []


def numbered(number: int, words: int = 30) -> str:
    """A text of its own for each number."""
    return " ".join("w" + hashlib.sha1(f"{number} {word}".encode()).hexdigest()[:6] for word in range(words))


def test_copies_are_dropped_and_the_shortest_path_stays() -> None:
    first = Doc("zoo.feed", numbered(1, 5), numbered(2))
    same_summary = Doc("zoo.inner.feed", first.summary.upper(), numbered(3))
    same_body = Doc("zoo.inner.wash", numbered(4, 5), f"{first.body}!")
    near = Doc("zoo.inner.brush", numbered(5, 5), f"{first.body} And one thing more.")
    related = Doc("zoo.inner.clip", numbered(6, 5), f"{numbered(7, 25)} {first.body}")
    other = Doc("zoo.inner.walk", numbered(8, 5), numbered(9))
    assert drop_copies([near, same_body, other, same_summary, related, first]) == [first, related, other]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package ``zoo`` with 60 documented names, instead of the real ones."""
    site = tmp_path / "site"
    for folder in ("zoo/cages", "zoo/tests", "zoo/_vendor", "zoo/not-a-package"):
        (site / folder).mkdir(parents=True)
    functions = [f"def f{100 + i}():\n    {docstring(numbered(i, 6) + '.', numbered(-i))}\n" for i in range(60)]
    (site / "zoo/__init__.py").write_text("raise RuntimeError('sources are parsed, never imported')\n")
    (site / "zoo/cages/__init__.py").write_text("\n".join(functions[:40]))
    (site / "zoo/cages/_inner.py").write_text("\n".join(functions[40:]))
    again = docstring(numbered(70, 6), numbered(-70, 200))
    (site / "zoo/cages/_other.py").write_text(f"def f140():\n    {again}\n")
    for ignored in ("tests/helper.py", "_vendor/six.py", "test_a.py", "a_test.py", "data.txt"):
        (site / "zoo" / ignored).write_text(f"def ignored():\n    {docstring('Nobody should see this one.', OTHER)}\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("two_tower.data.pydocs.PACKAGES", {"zoo": "zoo", "not_installed": "not-installed"})
    monkeypatch.setattr("two_tower.data.pydocs.MIN_PAIRS", 10)
    return site


@pytest.fixture
def docs(packages: Path, tmp_path: Path) -> PyDocs:
    return PyDocs(stdlib=False, cache=str(tmp_path / "cache"))


@pytest.mark.usefixtures("packages")
def test_which_files_are_read() -> None:
    own = ["zoo", "zoo.cages", "zoo.cages._inner", "zoo.cages._other"]
    assert [module for module, _ in _source_files(stdlib=False)] == own
    with_stdlib = {module for module, _ in _source_files(stdlib=True)}
    assert {"argparse", "email.message", "zoo.cages"} <= with_stdlib
    assert not {m for m in with_stdlib if m.startswith(("test.", "idlelib", "site-packages")) or ".tests." in m}


def test_passages_queries_and_judgements(docs: PyDocs, capfd: pytest.CaptureFixture[str]) -> None:
    passages, *found = everything(docs)
    shown = values(docs.search_corpus(), CORPUS)
    assert capfd.readouterr() == ("", "")
    ids = [i for i, _, _ in passages]
    assert len(set(ids)) == len(ids) == 61
    assert [i for i in ids if "#" in i] == ["zoo.cages.f140#2"]
    assert [title for _, title, _ in passages] == [i.partition("#")[0] for i in ids]

    texts, visible = ({i: text for i, _, text in rows} for rows in (passages, shown))
    assert texts["zoo.cages.f107"] == numbered(-7)
    assert texts["zoo.cages.f140#2"] == " ".join(numbered(-70, 200).split()[:120])
    judged: list[str] = []
    for qrels, queries in zip(found[0:6:2], found[1:6:2], strict=True):
        for (name, document, grade), (query_id, query) in zip(qrels, queries, strict=True):
            assert (name, grade) == (query_id, 1)
            assert query not in texts[document]
            assert visible[document] == f"{query} {texts[document]}"
            judged.append(document)
    assert sorted(judged) == sorted(ids)
    check_split_refused(docs, "tset", "no split 'tset': did you mean 'test'")


def test_a_name_decides_its_split_alone(docs: PyDocs) -> None:
    found = {d: split for split in docs.splits() for d in docs.qrels(split)["document_id"].to_pylist()}
    for name, split in found.items():
        bucket = int.from_bytes(hashlib.sha1(name.partition("#")[0].encode()).digest()[:4], "big") % 100
        assert split == ("train" if bucket >= 12 else "dev" if bucket >= 8 else "test")
    assert set(found.values()) == {"train", "dev", "test"}


def test_without_sources_the_remedy_is_named(docs: PyDocs, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("two_tower.data.pydocs.MIN_PAIRS", 2000)
    check_refused(lambda: list(docs.corpus()), r"found only 61 .* data=beir data\.path=FOLDER")
    shutil.rmtree(packages / "zoo")
    check_refused(lambda: list(docs.corpus()), "found only 0 ")


def test_a_harvest_is_made_once(docs: PyDocs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = values(docs.corpus())
    monkeypatch.setattr(HARVEST, lambda *_: pytest.fail("the cache should have been read"))
    second = PyDocs(stdlib=False, cache=str(tmp_path / "cache"))
    assert values(second.corpus()) == corpus
    assert second.fingerprint() == docs.fingerprint()


@pytest.mark.parametrize(
    ("target", "value"), [("data.pydocs.RULES", 10**6), ("data.pydocs._versions", lambda: ["zoo==2"])]
)
def test_other_sources_have_another_cache(monkeypatch: pytest.MonkeyPatch, target: str, value: object) -> None:
    docs = PyDocs()
    before = docs._cache_key()
    assert PyDocs(stdlib=False)._cache_key() != before == docs._cache_key()
    monkeypatch.setattr(f"two_tower.{target}", value)
    assert docs._cache_key() != before


@pytest.mark.usefixtures("packages")
def test_the_fingerprint_follows_the_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [Doc(f"zoo.f{i}", numbered(i, 6), numbered(-i)) for i in range(20)]
    seen = set()
    for changes in ({}, {"name": "zoo.g"}, {"body": "other"}):
        monkeypatch.setattr(HARVEST, lambda *_, changes=changes: [pairs[0]._replace(**changes), *pairs[1:]])
        seen.add(PyDocs(stdlib=False, cache=str(tmp_path / str(changes))).fingerprint())
    assert len(seen) == 3


def test_installed_packages_make_a_search_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = re.compile(r"argparse|(numpy|networkx\.algorithms)(\..*)?|torch\.(nn\.functional|_torch_docs)")
    files = [file for file in _source_files(stdlib=True) if some.fullmatch(file[0])]  # of 5,200; all take 10 s
    monkeypatch.setattr("two_tower.data.pydocs._source_files", lambda _: files)
    monkeypatch.setattr("two_tower.data.pydocs.MIN_PAIRS", 1000)
    docs = PyDocs(cache=str(tmp_path))
    ids, _, texts = zip(*values(docs.corpus()), strict=True)
    assert 1_400 < len(set(ids)) == len(ids) < 1_900
    assert not [i for i in ids if " " in i]
    assert {"numpy.linalg.solve", "torch.nn.functional.cosine_similarity", "argparse"} <= set(ids)
    sizes = {split: len(docs.qrels(split)) / len(ids) for split in docs.splits()}
    assert sizes == pytest.approx({"train": 0.88, "dev": 0.04, "test": 0.08}, abs=0.02)
    assert not [t for t in texts if {"{input}", "{dtype}", "{out}", "{requires_grad}"} & set(t.split())]
    assert max(len(t.split()) for t in texts) == 120
