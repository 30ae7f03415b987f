"""Writing to a terminal that may go away, be a pipe, or know no character beyond ASCII."""

from __future__ import annotations

import contextlib
import shutil
import sys
from typing import TextIO


def show(text: str, stream: TextIO | None = None) -> None:
    """Write text to standard output, or to the given stream. A reader that has gone away is no error."""
    out = sys.stdout if stream is None else stream
    encoding = getattr(out, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
        out.write(text.encode(encoding, "replace").decode(encoding))
        out.flush()


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches the stream: colours and a live bar make sense."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def columns(stream: TextIO, most: int) -> int:
    """How wide a page for the stream may be: `most`, or what a terminal has room for."""
    return min(most, shutil.get_terminal_size().columns) if is_terminal(stream) else most
