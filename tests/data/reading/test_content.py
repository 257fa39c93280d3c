"""The bytes of a file: however packed and encoded, the same text comes out; what is no data is named."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rows import check_refused, values

from two_tower.data.beir import Beir
from two_tower.data.pairs import PairsSource
from two_tower.data.passages import Passages
from two_tower.data.reading import content
from two_tower.data.reading.content import chunks
from two_tower.embedding.pretrained import open_vectors

LINES = b'{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n'


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, LINES)
    return file.getvalue()


def packed_in_tar() -> bytes:
    file, info = io.BytesIO(), tarfile.TarInfo("a.jsonl")
    info.size = len(LINES)
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.addfile(info, io.BytesIO(LINES))
    return file.getvalue()


ZSTD = pa.compress(LINES, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.GZ", gzip.compress(LINES)), ("a.jsonl", gzip.compress(LINES)), ("a.jsonl.gz", LINES),
        ("a.gz", gzip.compress(LINES[:30]) + gzip.compress(LINES[30:])), ("a.bz2", bz2.compress(LINES)),
        ("a.jsonl.xz", lzma.compress(LINES)), ("a.jsonl.zst", ZSTD), ("a", ZSTD), ("a.zip", zipped("x.jsonl")),
        ("b.zip", zipped("__MACOSX/._x.jsonl", "x.jsonl")),
    ],
    ids=range(10),
)  # fmt: skip
def test_packed_files_are_known_by_their_bytes(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert values(Passages(tmp_path / name).corpus()) == [("a", "", "one"), ("b", "", "two")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.gz", gzip.compress(LINES)[:-9], "cannot be read to its end"),
        ("a.bz2", bz2.compress(LINES)[:-9], "cannot be read to its end"),
        ("a.xz", lzma.compress(LINES)[:-9], "cannot be read to its end"),
        ("a.zst", ZSTD[:-5], "cannot be read to its end"),
        ("a.zip", zipped("x.jsonl")[:-5], "cannot be read to its end"),
        ("a.zip", zipped("x.jsonl", "y.jsonl"), r"zip archive of 2 files \(x\.jsonl, y\.jsonl\): unpack it"),
        ("a.tar.gz", packed_in_tar(), "an archive of files: unpack it"),
        ("a.xlsx", zipped("[Content_Types].xml", "x"), "an Excel or Word document: save it as CSV"),
        ("a.pdf", b"%PDF-1.4", "a PDF document, not text"),
        ("a.csv", b"\n<!DOCTYPE html>\n<html>404", r"web page \(HTML or XML\).*download the file again"),
        ("a.parquet", b"<html>no</html>", "web page"),
        ("a.jsonl", b"<?xml version='1.0'?><Error>", "web page"),
        ("a.csv", b" \n", "is empty"),
    ],
    ids=range(13),
)
def test_what_is_no_data_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    check_refused(lambda: list(Passages(tmp_path / name).corpus()), rf"{name}.*{message}")


def test_a_pointer_of_git_lfs_is_named_wherever_a_file_is_read(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    for name in ("a.jsonl", "a.csv", "a.parquet", "a.vec", "a.safetensors", "corpus.jsonl"):
        (tmp_path / name).write_text(pointer)
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        check_refused(lambda name=name: PairsSource(tmp_path / name), f"{name} is a pointer of Git LFS.* git lfs pull")
    for name in ("a.vec", "a.safetensors"):
        check_refused(lambda name=name: open_vectors(tmp_path / name), f"{name} is a pointer of Git LFS")
    check_refused(lambda: Beir(tmp_path), "corpus.jsonl is a pointer of Git LFS")


# Encodings

GERMAN = "Wie groß ist das Gerät {}?;Die Größe für Äpfel: {} – 5 €"
WESTERN = [
    GERMAN, "Où est l’été à Besançon {};L’hôtel est près de la forêt, ça coûte {} €", "Don’t do {};It’s “fine” – {}",
    "¿Dónde está el niño {}?;Mañana estará aquí {}", "Como instalar a aplicação {};Não são três ações {}",
    "Missä on pääkaupunki {};Se on täällä, hyvää yötä {}", "Hvor er æblet på øen {};Det står på bordet {}",
    "Hvað er klukkan {};Það er þriðjudagur, góða nótt {}", "Perché è così {};La città è più bella, però {}",
]  # fmt: skip
OTHERS = [
    ("cp1251", "Как установить программу {};Нажмите кнопку {}"), ("koi8-r", "Как установить программу {};Нажмите {}"),
    ("cp1250", "Jak zainstalować łódź {};Naciśnij żółty {}"), ("cp1250", "Jak instalovat příklad {};Žluťoučký kůň {}"),
    ("cp1250", "Hogyan telepítsem nőűö {};Nyomja meg őrült {}"), ("cp1254", "Programı nasıl kurarım {};Işık şeker {}"),
    ("shift_jis", "プログラムの入れ方 {};ボタンを押す {}"), ("gbk", "如何安装程序 {};请按按钮 {}"),
    ("big5", "如何安裝程式 {};請按按鈕 {}"), ("euc-kr", "프로그램 설치 방법 {};버튼을 누르세요 {}"),
    ("cp1253", "Πώς εγκαθιστώ {};Πατήστε το κουμπί {}"), ("cp1255", "איך מתקינים {};לחץ על הכפתור {}"),
    ("cp1256", "كيف أثبت {};اضغط على الزر {}"), ("cp1257", "Kā instalēt {};Nospiediet pogu šķirba {}"),
    ("mac-roman", GERMAN), ("cp850", GERMAN.replace("–", "-").replace("€", "")),
]  # fmt: skip


def table(text: str, rows: int = 30) -> str:
    return "question;answer\n" + "".join(text.format(i, i) + "\n" for i in range(rows))


def answers(path: Path, text: bytes, **settings: str) -> list[str]:
    path.write_bytes(text)
    return [text for *_, text in values(PairsSource(path, **settings).corpus())]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_unicode_and_windows_are_found_out(
    tmp_path: Path, encoding: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = answers(tmp_path / name, table(GERMAN).encode())
    assert answers(tmp_path / name, table(GERMAN).encode(encoding)) == expected
    assert ("read as Windows-1252" in caplog.text) == (encoding == "cp1252")


@pytest.mark.parametrize("text", WESTERN)
def test_the_languages_of_windows_1252(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    assert answers(path, table(text).encode("cp1252")) == answers(path, table(text).encode())


@pytest.mark.parametrize(("encoding", "text"), OTHERS, ids=[f"{e}-{n}" for n, (e, _) in enumerate(OTHERS)])
def test_other_encodings_are_never_guessed_but_read_when_named(tmp_path: Path, encoding: str, text: str) -> None:
    path, data = tmp_path / "a.csv", table(text).encode(encoding)
    check_refused(lambda: answers(path, data), r"invalid UTF-8.*convert.*data\.encoding=NAME")
    assert answers(path, data, encoding=encoding) == answers(path, table(text).encode())


@pytest.mark.parametrize("text", ["Где дом {};Дом там {}", "家 {};山 {}", "בית {};הר {}", "บ้าน {};ภูเขา {}"])
def test_utf16_without_mark_in_any_script(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    for encoding in ("utf-16-le", "utf-16-be"):
        assert answers(path, table(text).encode(encoding)) == answers(path, table(text).encode())


def test_letters_that_come_late_decide_and_two_encodings_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "CHUNK_BYTES", 1000)
    text = table("how big is number {};as big as number {}", 100) + table(GERMAN, 3).partition("\n")[2]
    path = tmp_path / "a.csv"
    assert answers(path, text.encode("cp1252")) == answers(path, text.encode())
    both = (text + table(GERMAN).partition("\n")[2]).encode("cp1252") + table(GERMAN, 100).partition("\n")[2].encode()
    check_refused(lambda: answers(path, both), r"begins in Windows-1252 and goes on in UTF-8")


@pytest.mark.parametrize("first", [True, False])
def test_a_broken_row_does_not_change_the_encoding(tmp_path: Path, first: bool) -> None:
    head, rows = b"question;answer\n", table("Größe {};Gerät {}").partition("\n")[2].encode()
    data = head + b"b\xe4d;x\n" * first + rows + b"b\xe4d;x\n" * (not first)
    (tmp_path / "a.csv").write_bytes(data)
    source = PairsSource(tmp_path / "a.csv", max_bad_rows=0.1)
    assert [text for *_, text in values(source.corpus())] == [f"Gerät {i}" for i in range(30)]


def test_an_unknown_encoding_is_named(tmp_path: Path) -> None:
    check_refused(lambda: Passages(tmp_path, encoding="windows"), "encoding=windows is no encoding")
    check_refused(lambda: Passages(tmp_path, encoding="base64"), "encoding=base64 is no encoding")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map("x{}\n".format))
@example("x\0\n")
@example("x\0y\0\n")
def test_utf8_passes_through_unchanged(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("content") / "a.txt"
    path.write_bytes(text.encode())
    assert b"".join(chunks(path)).decode() == text
