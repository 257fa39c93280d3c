"""Files of a folder by name, wherever they lie: plain, ``.gz``, or members of a ``.tar.gz``, read without unpacking."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO

from two_tower.errors import UserError
from two_tower.files import refuse_stand_in

PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")  # endings that compressed files usually have; their content decides
_ARCHIVE = ".tar.gz"
# Small members are kept as they are met: to read one behind MS MARCO's collection again would take a pass over 1 GB.
_KEPT_BYTES = 128 << 20
_DAMAGED = (OSError, EOFError, zlib.error, tarfile.TarError)


@dataclass(frozen=True)
class Member:
    """A file inside an archive, with what readers use of a `pathlib.Path`."""

    archive: Path
    info: tarfile.TarInfo
    content: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    @property
    def name(self) -> str:
        return PurePosixPath(self.info.name).name  # without folders

    @contextmanager
    def open(self, mode: str = "rb") -> Iterator[IO[bytes]]:
        """The member's bytes; of a large one by one pass over the archive up to its end, in memory of a fixed size."""
        if self.content is not None:
            yield io.BufferedReader(io.BytesIO(self.content))
            return
        with tarfile.open(self.archive, "r:gz") as tar:
            file = tar.extractfile(self.info)
            assert file is not None  # only regular files are found
            with file:
                yield file


class Archive:
    """A ``.tar.gz`` file whose members are read in place; looking for one decompresses what comes before it, once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: dict[str, Member] = {}  # by name without folders; those met so far
        self._all_seen, self._room = False, _KEPT_BYTES

    def find(self, name: str) -> Member | None:
        """The member with this name in any folder of the archive, or None."""
        while name not in self.members and not self._all_seen:
            try:
                info = self._tar.next()
            except _DAMAGED as error:
                with self.path.open("rb") as file:
                    refuse_stand_in(self.path, file.read(1000))
                raise UserError(f"{self.path} cannot be read to its end ({error}): get a whole copy of it") from error
            self._all_seen = info is None
            if info is not None and info.isfile():
                self.members.setdefault(PurePosixPath(info.name).name, Member(self.path, info, self._small(info)))
        return self.members.get(name)

    def _small(self, info: tarfile.TarInfo) -> bytes | None:
        if info.size > self._room:
            return None
        try:
            file = self._tar.extractfile(info)
            content = file.read() if file is not None else None
        except _DAMAGED:
            return None  # reported by whoever reads it
        self._room -= info.size
        return content

    @cached_property
    def _tar(self) -> tarfile.TarFile:
        return tarfile.open(self.path, "r:gz")


class Folder:
    """Finds files by name: as they are, compressed as ``NAME.gz``, in ``STEM.tar.gz``, in one of some ``archives``.

    Other archives are not searched: to find out that a file is not in one takes decompressing all of it.
    """

    def __init__(self, path: Path, archives: Sequence[str] = ()) -> None:
        self.path, self.archives = path, tuple(archives)
        self._opened: dict[Path, Archive] = {}

    def find(self, name: str) -> Path | Member | None:
        for ending in ("", *PACKED):
            if (path := self.path / f"{name}{ending}").is_file():
                return path
        for archive in (Path(name).stem + _ARCHIVE, *self.archives):
            path = self.path / archive
            if path.is_file():
                found = self._opened.setdefault(path, Archive(path)).find(name)
                if found is not None:
                    return found
        return None

    def names(self) -> list[str]:
        """The files of the folder, without ``.gz``, and of the archives as far as they were searched."""
        plain = [path.name.removesuffix(".gz") for path in self.path.iterdir() if path.is_file()]
        return plain + [member for archive in self._opened.values() for member in archive.members]
