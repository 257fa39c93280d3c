"""The one exception that a user's mistake raises; entry points turn it into one sentence and exit status 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["UserError", "nearest", "one_of"]


class UserError(Exception):
    """A mistake in the command, the configuration or the data.

    The message is one clear sentence: what was wrong, where (file, row, config key), what to do.
    """


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like ``name``, or None if nothing is alike."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return matches[0] if matches else None


def one_of(name: str, valid: Iterable[str]) -> str:
    """The end of an error message: ``did you mean 'dev'? (dev, test, train)``."""
    names = sorted(valid)
    guess = nearest(name, names)
    listing = ", ".join(names) if names else "none"
    return f"did you mean {guess!r}? (valid: {listing})" if guess else f"valid: {listing}"
