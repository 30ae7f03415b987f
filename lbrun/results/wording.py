"""How numbers and foreign text are put into words, the same in summary, report and progress."""

from __future__ import annotations

import unicodedata
from urllib.parse import urlsplit

ABSENT = "-"


def count(n: int) -> str:
    """A number of things: ``13,368``."""
    return f"{n:,}"


def things(n: int, singular: str, plural: str | None = None) -> str:
    """A number and what it counts: ``1 sample``, ``13,368 samples``."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def number(value: float | None) -> str:
    """A measured value with three significant digits: ``1,234``, ``12.3``, ``0.0123``."""
    if value is None:
        return ABSENT
    size = abs(value)
    if size >= 100 or size == 0:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3g}"


def percent(share: float) -> str:
    """A share of 1: ``33.4 %``."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """A span of time: ``4.2 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clean(text: str, limit: int = 300) -> str:
    """Foreign text (a server's error, say) as one printable line of at most `limit` characters.

    Control and format characters become blanks, so that an answer cannot move the cursor, colour the
    terminal or reverse a line.
    """
    printable = "".join(" " if unicodedata.category(c) in _NOT_PRINTED else c for c in text[: 4 * limit])
    line = " ".join(printable.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def short_url(url: str) -> str:
    """A server's URL as a name: ``10.0.0.1:8000``, ``gpu-7.example.com/v2``."""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path.rstrip('/')}" if parts.netloc else url


_NOT_PRINTED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
