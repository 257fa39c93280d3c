"""The one exception that a user's mistake raises, and how the commands end: one sentence and an exit status."""

from __future__ import annotations

import difflib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["UserError", "exit_statuses", "fail", "nearest", "one_of"]


class UserError(Exception):
    """A mistake in the command, the configuration or the data.

    The message is one clear sentence: what was wrong, where (file, row, config key), what to do.
    """


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like ``name``, or None if nothing is alike."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return matches[0] if matches else None


def one_of(name: str, valid: Iterable[str]) -> str:
    """The end of an error message: ``did you mean 'dev'? (valid: dev, test, train)``."""
    names = sorted(valid)
    guess = nearest(name, names)
    listing = ", ".join(names) if names else "none"
    return f"did you mean {guess!r}? (valid: {listing})" if guess else f"valid: {listing}"


@contextmanager
def exit_statuses(after_interrupt: str = "") -> Iterator[None]:
    """How every command ends: status 2 for a user's mistake, 1 when interrupted, each with one sentence on stderr.

    Any other exception passes, so it ends in a traceback and status 1.

    Args:
        after_interrupt: how to go on after Ctrl-C. Where the work stopped is the exception's own argument.
    """
    try:
        with _noting_ctrl_c() as noted:
            yield
    except UserError as error:
        fail(str(error))
    except (PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        # What a path on the command line leads to, wherever it is first used.
        fail(f"{error.filename} cannot be used: {error.strerror}")
    except KeyboardInterrupt as error:
        _interrupted(after_interrupt, *map(str, error.args))
    except BrokenPipeError:  # whoever read the output, head for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # no second error at exit
        sys.exit(1)
    except Exception:
        if noted:  # whatever was being imported or called made another error of it
            _interrupted(after_interrupt)
        raise


def _interrupted(after: str, *where: str) -> NoReturn:
    sentence = " ".join(["Interrupted", *where])
    fail(f"{sentence}: {after}" if after else sentence, status=1)


@contextmanager
def _noting_ctrl_c() -> Iterator[list[int]]:
    """Ctrl-C raises KeyboardInterrupt as ever; the list that is given is empty until then."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only that one may
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
    sys.stderr.write(line if line.endswith((".", "?", "!")) else f"{line}.")
    sys.stderr.write("\n")
    sys.exit(status)
