"""What a file holds, as plain bytes of UTF-8: however it is compressed and encoded, and whatever it is called.

What is no data is named: a pointer of Git LFS, a saved web page, a document of an office.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from two_tower.cache import notice
from two_tower.data.reading.archive import PACKED, Member
from two_tower.data.reading.encodings import decoded, guess, unicode_form
from two_tower.errors import UserError
from two_tower.files import refuse_stand_in

File = Path | Member

CHUNK_BYTES = 8 << 20  # large enough for Arrow's threads, small enough to parse again line by line
ENCODING = "convert it to UTF-8, or say what it is in with data.encoding=NAME (for example shift_jis)"
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, pa.ArrowInvalid)
_DOCUMENTS = {
    b"%PDF": "a PDF document", b"\xd0\xcf\x11\xe0": "an Excel or Word document", b"SQLite format 3": "a database",
    b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file",
}  # fmt: skip


@contextmanager
def readable(path: object) -> Iterator[None]:
    """Around work with a file: a file that is absent, cut or damaged becomes a UserError."""
    try:
        yield
    except _DAMAGED as error:
        if isinstance(error, FileNotFoundError):
            raise UserError(f"{path} does not exist") from error
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read to its end ({reason}): get a whole copy of it") from error


@contextmanager
def opened(path: File) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed where its first bytes say how it is packed."""
    with readable(path), ExitStack() as stack:
        file: Any = stack.enter_context(path.open("rb"))
        start = file.peek(8)[:8]
        for magic, unpack in UNPACK.items():
            if start.startswith(magic):
                file = stack.enter_context(unpack(file))
        yield file


def _unzip(file: IO[bytes]) -> IO[bytes]:
    archive, name = zipfile.ZipFile(file), getattr(file, "name", "The file")
    members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
    if any(member.filename == "[Content_Types].xml" for member in members):
        raise UserError(f"{name} is an Excel or Word document: save it as CSV")
    if len(members) != 1:
        names = ", ".join(member.filename for member in members[:5])
        raise UserError(f"{name} is a zip archive of {len(members)} files ({names}): unpack it and give one of them")
    if members[0].flag_bits & 1:
        raise UserError(f"{name} is locked with a password: unpack it")
    return archive.open(members[0])


UNPACK: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open, b"PK\x03\x04": _unzip,
    b"\x28\xb5\x2f\xfd": lambda file: pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"),
}  # fmt: skip


def chunks(path: File, encoding: str | None = None) -> Iterator[bytes]:
    """A file's text in UTF-8 without mark, in pieces of about 8 MiB; invalid bytes stay, for readers to count.

    ``encoding`` is the user's. Without one a file is in UTF-8, UTF-16 or Windows-1252, which is said in a notice: it
    is decided where the first byte beyond ASCII is, as all three are the same before it.
    """
    with opened(path) as file:
        chunk = file.read(CHUNK_BYTES)
        refuse_stand_in(path, chunk[:1000])
        _refuse_documents(path, chunk)
        form, mark = unicode_form(chunk)
        given, encoding = encoding, encoding or form
        decode = _decoder(path, encoding)
        if encoding is not None and codecs.lookup(encoding).name == form:
            chunk = chunk[mark:]
        while chunk:
            if encoding is None and not chunk.isascii():
                encoding = guess(chunk)
                decode = _decoder(path, encoding)
                if encoding != "utf-8":
                    notice(f"{path}: read as Windows-1252; if that is wrong, {ENCODING}.")
            elif encoding == "cp1252" and given is None and not chunk.isascii() and decoded(chunk, "utf-8"):
                raise UserError(f"{path} begins in Windows-1252 and goes on in UTF-8: write all of it in UTF-8")
            yield decode(chunk, False)
            chunk = file.read(CHUNK_BYTES)
        if rest := decode(b"", True):
            yield rest


def _refuse_documents(path: File, start: bytes) -> None:
    what = next((name for magic, name in _DOCUMENTS.items() if start.startswith(magic)), None)
    if what is not None or start[257:262] == b"ustar":
        what = what or "an archive of files: unpack it and give one of them"
        raise UserError(f"{path} is {what}" + ("" if ":" in what else ", not text: save it as CSV or JSON lines"))


def _decoder(path: File, encoding: str | None) -> Callable[[bytes, bool], bytes]:
    """What makes UTF-8 of pieces of the encoding."""
    if encoding is None or codecs.lookup(encoding).name == "utf-8":
        return lambda piece, final: piece
    # Python has no way to keep any invalid byte of UTF-16; halves of surrogate pairs are what there is.
    errors = "surrogatepass" if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")) else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)

    def decode(piece: bytes, final: bool) -> bytes:
        try:
            return decoder.decode(piece, final).encode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not in the encoding {encoding} ({error.reason}): {ENCODING}") from error

    return decode


def check_encoding(encoding: str | None) -> None:
    """Raise a ValueError unless Python knows this encoding of texts."""
    with suppress(LookupError):
        if encoding is None or codecs.lookup(encoding)._is_text_encoding:
            return
    raise ValueError(f"encoding={encoding} is no encoding that is known: give one such as cp1251, shift_jis, gb18030")


def bare_name(path: Path) -> str:
    """A file's name without its last ending and without that of a compression, whatever their case."""
    return Path(path.stem).stem if path.suffix.lower() in PACKED else path.stem


def kind_of(path: File) -> str:
    """The ending of a file's name in lower case, without that of a compression: ``.jsonl`` of ``A.JSONL.GZ``."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in PACKED else name.suffix
