"""Files of a folder by name, wherever they lie: plain, ``.gz``, or members of a ``.tar.gz``, read without unpacking."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from two_tower.errors import UserError
from two_tower.files import refuse_stand_in

PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")  # endings that compressed files usually have; their content decides
# Small members are kept as they are met: to read one behind MS MARCO's collection again would take a pass over 1 GB.
_KEPT_BYTES = 128 << 20


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
        with tarfile.open(self.archive, "r:gz") as tar, _extracted(tar, self.info) as file:
            yield file


def _extracted(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    assert file is not None  # only regular files are found
    return file


class Archive:
    """A ``.tar.gz`` file whose members are read in place; looking for one decompresses what comes before it, once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: dict[str, Member] = {}  # by name without folders; those met so far
        self._others = self._read()

    def find(self, name: str) -> Member | None:
        """The member with this name in any folder of the archive, or None."""
        while name not in self.members and (member := next(self._others, None)) is not None:
            self.members.setdefault(member.name, member)
        return self.members.get(name)

    def _read(self) -> Iterator[Member]:
        room = _KEPT_BYTES
        try:
            with tarfile.open(self.path, "r:gz") as tar:
                for info in filter(tarfile.TarInfo.isfile, tar):
                    small = info.size <= room
                    room -= info.size if small else 0
                    yield Member(self.path, info, _extracted(tar, info).read() if small else None)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            with self.path.open("rb") as file:
                refuse_stand_in(self.path, file.read(1000))
            raise UserError(f"{self.path} cannot be read to its end ({error}): get a whole copy of it") from error


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
        for archive in (f"{Path(name).stem}.tar.gz", *self.archives):
            if (path := self.path / archive).is_file():
                found = self._opened.setdefault(path, Archive(path)).find(name)
                if found is not None:
                    return found
        return None

    def names(self) -> list[str]:
        """The files of the folder, without ``.gz``, and of the archives as far as they were searched."""
        plain = [path.name.removesuffix(".gz") for path in self.path.iterdir() if path.is_file()]
        return plain + [member for archive in self._opened.values() for member in archive.members]
