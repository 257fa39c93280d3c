"""Files of a folder by name, wherever they lie: plain, ``.gz``, or members of a ``.tar.gz``, read without unpacking."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from two_tower.errors import UserError

__all__ = ["Archive", "Bookmark", "Folder", "GzipReader", "Member", "MemberReader"]

_CHUNK_BYTES = 256 << 10
_ARCHIVE = ".tar.gz"


@dataclass(frozen=True)
class Bookmark:
    """A place in a ``.gz`` file to start from.

    Attributes:
        position: in the decompressed bytes.
        compressed: in the file.
        inflater: the decompressor's state there, about 50 KB; never used itself, only copies of it.
    """

    position: int
    compressed: int
    inflater: zlib._Decompress


class GzipReader(io.RawIOBase):
    """The decompressed bytes of a ``.gz`` file, from its start or from a bookmark; goes forward only.

    Checks length and checksum where the file ends, and reads concatenated parts as one, as gzip does.

    Args:
        path: the file.
        start: where to begin.

    Raises:
        EOFError: on reading, where the file ends too early.
        zlib.error: on reading, where it is damaged or not compressed.
    """

    def __init__(self, path: Path, start: Bookmark | None = None) -> None:
        start = start or Bookmark(0, 0, _inflater())
        self._file = path.open("rb")
        self._file.seek(start.compressed)
        self._position, self._inflater = start.position, start.inflater.copy()
        self._pending = b""  # compressed bytes that were read from the file, but not used yet

    def bookmark(self) -> Bookmark:
        """The place reached."""
        inflater = _inflater() if self._inflater.eof else self._inflater.copy()
        return Bookmark(self._position, self._file.tell() - len(self._pending), inflater)

    def readable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position in the decompressed bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go forward to an absolute position, or to the end if that comes first."""
        if whence != io.SEEK_SET or offset < self._position:
            raise io.UnsupportedOperation("a compressed file is read forward only")
        while self._position < offset and self._more(min(offset - self._position, _CHUNK_BYTES * 4)):
            pass
        return self._position

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, fewer only at the end; all that follow if ``size`` is negative."""
        parts, missing = [], size
        while missing and (part := self._more(missing if size > 0 else _CHUNK_BYTES * 4)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _more(self, limit: int) -> bytes:
        """At least one and at most ``limit`` bytes, or none at the end."""
        while True:
            if self._inflater.eof and not self._next_part():
                return b""
            self._pending = self._pending or self._file.read(_CHUNK_BYTES)
            ended = not self._pending
            found = self._inflater.decompress(self._pending, limit)
            self._pending = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            if found:
                self._position += len(found)
                return found
            if ended and not self._inflater.eof:
                raise EOFError("the compressed data ends too early")

    def _next_part(self) -> bool:
        while not (rest := self._pending.lstrip(b"\0")):  # a tape's last block may be filled up with zeros
            self._pending = self._file.read(_CHUNK_BYTES)
            if not self._pending:
                return False
        self._pending, self._inflater = rest, _inflater()
        return True


def _inflater() -> zlib._Decompress:
    return zlib.decompressobj(zlib.MAX_WBITS | 16)  # 16: with gzip's header and trailer


class Archive:
    """A ``.tar.gz`` file whose members are read in place.

    Looking for a member decompresses what comes before it, once; reading it, also again, starts there.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, tuple[Bookmark, int]] = {}  # base name → start, size
        self._all_seen = False

    def find(self, name: str) -> Member | None:
        """The member with this name in any folder of the archive, or None.

        Raises:
            UserError: the archive is damaged or ends too early.
        """
        while name not in self._members:
            if self._all_seen:
                return None
            try:
                info = self._tar.next()
            except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
                raise UserError(f"{self.path} cannot be read to its end ({error}): get a whole copy of it") from error
            self._all_seen = info is None
            if info is not None and info.isfile():
                member = self._reader.bookmark(), info.size
                self._members.setdefault(PurePosixPath(info.name).name, member)
        return Member(self, name)

    def open(self, name: str) -> MemberReader:
        """The bytes of a member that `find` found."""
        start, size = self._members[name]
        return MemberReader(GzipReader(self.path, start), size)

    @property
    def members(self) -> list[str]:
        """The names met so far; all of them once `find` has answered None."""
        return list(self._members)

    @cached_property
    def _reader(self) -> GzipReader:
        return GzipReader(self.path)

    @cached_property
    def _tar(self) -> tarfile.TarFile:
        return tarfile.open(fileobj=self._reader, mode="r:")


class MemberReader(io.RawIOBase):
    """The bytes of one member.

    Args:
        reader: stands at the member's first byte; closed with this one.
        size: bytes of the member.
    """

    def __init__(self, reader: GzipReader, size: int) -> None:
        self._reader, self._left = reader, size

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, fewer only at the end; all that follow if ``size`` is negative.

        Raises:
            EOFError: the archive ends before the member does.
        """
        wanted = self._left if size < 0 else min(size, self._left)
        found = self._reader.read(wanted)
        if len(found) < wanted:
            raise EOFError("the archive ends too early")
        self._left -= wanted
        return found

    def close(self) -> None:
        """Close the archive's file."""
        self._reader.close()
        super().close()


@dataclass(frozen=True)
class Member:
    """A file inside an archive, with the few things of a `pathlib.Path` that readers use.

    Attributes:
        archive: where it lies.
        name: its name without folders.
    """

    archive: Archive
    name: str

    def __str__(self) -> str:
        return f"{self.archive.path}/{self.name}"

    @property
    def suffix(self) -> str:
        """The end of the name, from its last dot."""
        return PurePosixPath(self.name).suffix

    def open(self, mode: str = "rb") -> MemberReader:
        """The member's bytes; ``mode`` must be ``rb``."""
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: members are read as bytes")
        return self.archive.open(self.name)


class Folder:
    """Finds files by name: as they are, as ``NAME.gz``, in ``STEM.tar.gz``, in archives that hold several.

    Args:
        path: the folder.
        archives: names of archives that are looked into for any file. Others are not: finding out that a
            file is not in an archive takes decompressing all of it.
    """

    def __init__(self, path: Path, archives: Sequence[str] = ()) -> None:
        self.path, self.archives = path, tuple(archives)
        self._opened: dict[Path, Archive] = {}

    def find(self, name: str) -> Path | Member | None:
        """The file, or None; found again at no cost.

        Raises:
            UserError: an archive that may hold it is damaged or ends too early.
        """
        for path in (self.path / name, self.path / f"{name}.gz"):
            if path.is_file():
                return path
        for archive in (Path(name).stem + _ARCHIVE, *self.archives):
            path = self.path / archive
            if path.is_file():
                found = self._opened.setdefault(path, Archive(path)).find(name)
                if found is not None:
                    return found
        return None

    def names(self) -> list[str]:
        """The files of the folder, without ``.gz``, and of the archives as far as they were looked into."""
        plain = [path.name.removesuffix(".gz") for path in self.path.iterdir() if path.is_file()]
        return plain + [member for archive in self._opened.values() for member in archive.members]
