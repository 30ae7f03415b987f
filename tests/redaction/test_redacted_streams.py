"""What a process prints is redacted by lines, whoever prints it."""

from __future__ import annotations

import io
import logging
import traceback

from lbrun.redaction import Redactor, Secret
from lbrun.redaction.streams import RedactedStream

KEY = "sk-Kan4ryAbCdEfGh0123456789"


def _stream() -> tuple[io.StringIO, RedactedStream]:
    below = io.StringIO()
    return below, RedactedStream(below, Redactor([Secret("Authorization", KEY)]).redact)


def test_a_secret_written_in_pieces_is_masked() -> None:
    below, stream = _stream()
    for piece in ("the key ", KEY[:9], KEY[9:], " is", " wrong\nand so", " on"):
        stream.write(piece)
        stream.flush()
    assert below.getvalue() == "the key *** is wrong\n"
    stream.finish()
    assert below.getvalue() == "the key *** is wrong\nand so on"


def test_log_lines_and_tracebacks_are_masked() -> None:
    below, stream = _stream()
    log = logging.Logger("here")
    log.addHandler(logging.StreamHandler(stream))
    try:
        raise ValueError(f"illegal header line: {KEY.encode()!r}")
    except ValueError:
        log.exception("%s said it", KEY)
        traceback.print_exc(file=stream)
    assert "Traceback" in below.getvalue()
    assert "illegal header line: b'***'" in below.getvalue()
    assert "Kan4ry" not in below.getvalue()
