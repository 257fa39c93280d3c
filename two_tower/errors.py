"""What a user's mistakes become: one exception, counted bad rows, and how a command ends (one sentence, a status)."""

from __future__ import annotations

import atexit
import difflib
import errno
import gc
import io
import os
import re
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Column: TypeAlias = pa.Array | pa.ChunkedArray

_EXAMPLES = 3


class UserError(Exception):
    """A mistake in the command, the configuration or the data.

    The message is one clear sentence: what was wrong, where (file, row, config key), what to do. It stays on one line,
    whatever it quotes.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(re.sub(r"\s*[\r\n]\s*", " ", message))


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like ``name``, or None."""
    return next(iter(difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)), None)


def one_of(name: str, valid: Iterable[str]) -> str:
    """The end of an error message: ``did you mean 'dev'? (valid: dev, test, train)``."""
    names = sorted(valid)
    guess, listing = nearest(name, names), ", ".join(names) or "none"
    return f"did you mean {guess!r}? (valid: {listing})" if guess else f"valid: {listing}"


def at_least(minimum: int, **settings: float | None) -> None:
    """Raise a ValueError for the first setting below ``minimum``; None passes."""
    for name, value in settings.items():
        if value is not None and value < minimum:
            raise ValueError(f"{name}={value} must be at least {minimum}")


class BadRow(Exception):
    """A row that cannot be used: ``kind`` is what is counted, ``detail`` says more about this one."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


class BadRows:
    """The bad rows of one reading of a file: how many of each kind, of how many rows, and where the first ones are."""

    def __init__(self, max_bad_rows: float) -> None:
        if not 0 <= max_bad_rows <= 1:
            raise ValueError(f"max_bad_rows={max_bad_rows} must be a fraction of the rows, from 0 to 1")
        self.max_bad_rows = max_bad_rows
        self.rows = 0  # that were read so far, good or bad; whoever reads them counts them
        self.counts: Counter[str] = Counter()  # by kind
        self.examples: dict[str, list[str]] = {}  # the first of each kind, as ``FILE, row NUMBER: KIND (DETAIL)``
        self._first: tuple[int, str] | None = None

    def add(self, kind: str, file: object, row: int, detail: str = "") -> None:
        """Count one bad row; ``row`` is its number, from 1."""
        self.counts[kind] += 1
        message = f"{file}, row {row}: {kind}" + (f" ({detail})" if detail else "")
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(message)
        if self._first is None or row < self._first[0]:
            self._first = row, message

    def add_where(
        self, wrong: np.ndarray, kind: str, file: object, rows: np.ndarray, details: Column | None = None
    ) -> None:
        """Count the rows where ``wrong`` (N,) bool is true; ``rows`` (N,) are their numbers, ``details`` their ids."""
        for i in wrong.nonzero()[0]:
            self.add(kind, file, int(rows[i]), "" if details is None else details[int(i)].as_py())

    def check(self, rows: int | None = None) -> None:
        """At the end of a file: a UserError names the first bad row if there are more than the limit allows.

        ``rows`` is how many there were, for a reader that has not counted them.
        """
        self.rows = self.rows if rows is None else rows
        bad = self.counts.total()
        if self._first is not None and bad > self.max_bad_rows * self.rows:
            remedy = "correct the file" + (" or raise the limit" if bad < self.rows else "")
            if self.counts["invalid UTF-8"]:
                remedy = "convert the file to UTF-8, or say what it is in with data.encoding=NAME (cp1251, shift_jis …)"
            excess = f"more than data.max_bad_rows={self.max_bad_rows:g} allows: {remedy}"
            raise UserError(f"{self._first[1]}; {bad} of {self.rows} rows are bad, {excess}")

    def summary(self) -> str | None:
        """One sentence for a warning, or None where every row is good."""
        if not self.counts:
            return None
        kinds = ", ".join(f"{count} with {kind}" for kind, count in self.counts.most_common())
        shown = "; ".join(message for messages in self.examples.values() for message in messages)
        return f"{(n := self.counts.total())} bad row{' was' if n == 1 else 's were'} left out: {kinds} ({shown})"


def printable(text: str) -> str:
    """The text with U+FFFD for what is no character: bytes of an argument that are not UTF-8, halves of surrogates."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def first_line(error: Exception) -> str:
    """What an error says, in its first line; its kind, if it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def in_a_sentence(error: OSError) -> str:
    """What the operating system refuses, with the path if it is known."""
    reason = error.strerror or str(error)
    if error.errno == errno.EMFILE:
        reason += "; allow more (ulimit -n)"
    place = " or ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{printable(place)} cannot be used: {reason}" if place else reason


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give what a block raises where a disk is full, or an OSError without one, the path: who writes knows none."""
    try:
        yield
    except Exception as error:  # numpy's has no number, those of faiss and safetensors are none of the system
        of_system, full = isinstance(error, OSError), shutil.disk_usage(path.parent).free < 1e6
        if isinstance(error, UserError) or getattr(error, "filename", None) is not None or not (of_system or full):
            raise
        number = getattr(error, "errno", None) or (errno.ENOSPC if full else errno.EIO)
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def exit_statuses(after_interrupt: str = "") -> Iterator[None]:
    """How every command ends: status 2 for a user's mistake, 1 when interrupted, each with one sentence on stderr.

    Others pass through. ``after_interrupt`` says how to continue after Ctrl-C, the KeyboardInterrupt's argument where.
    """
    atexit.register(gc.freeze)  # else Python looks for garbage among all objects before it ends, for three seconds
    for stream in (sys.stdout, sys.stderr):  # a pipe of Windows, or LC_ALL=C, takes few characters
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with _noting_ctrl_c() as noted:
            yield
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt as error:
        _interrupted(after_interrupt, *map(str, error.args))
    except BrokenPipeError:  # the reader of the output (head, for example) has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # no second error at exit
        sys.exit(1)
    except Exception as error:
        if noted:  # a library turned the KeyboardInterrupt into another error
            _interrupted(after_interrupt)
        if sentence := _of_the_machine(error):
            fail(sentence)
        raise


def _of_the_machine(error: Exception) -> str | None:
    """A sentence for what is no bug: a path that cannot be used, a full disk, a name that is no text."""
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return None  # raised by code, not by the system
    if isinstance(error, OSError) and (error.errno is not None or type(error).__module__ == "builtins"):
        return in_a_sentence(error)  # a library's own kind without a number says something else
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return f"{printable(error.object)} is not UTF-8: call it otherwise"
    return None


def _interrupted(after: str, *where: str) -> NoReturn:
    sentence = " ".join(["Interrupted", *where])
    fail(f"{sentence}: {after}" if after else sentence, status=1)


@contextmanager
def _noting_ctrl_c() -> Iterator[list[int]]:
    """Ctrl-C raises KeyboardInterrupt as usual; the yielded list is empty until then."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield noted
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def fail(sentence: str, status: int = 2) -> NoReturn:
    """Write one line on stderr and exit."""
    line = " ".join(sentence.split("\n"))
    sys.stderr.write(f"{line}\n" if line.endswith((".", "?", "!")) else f"{line}.\n")
    sys.exit(status)
