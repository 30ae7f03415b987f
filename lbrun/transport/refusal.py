"""What a status other than 200 means, and how it is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

MAX_RETRY_AFTER_S = 30.0
"""A server that asks for more is asked again then: a run cannot wait for it."""

MAX_QUOTED_CHARS = 300
_DELAY = re.compile(r"[0-9]{1,9}")
_NOT_SHOWN = re.compile(r"[^\x21-\x7e\xa1-\U0010ffff]+")


def retry_after_s(value: bytes | None, now: datetime | None = None) -> float | None:
    """Read a Retry-After header (RFC 9110 10.2.3): whole seconds, or an HTTP date.

    Returns seconds from now, 0 to `MAX_RETRY_AFTER_S`; None for no header or one that says nothing.
    """
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if _DELAY.fullmatch(text):
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        wait_s = (date - (now or datetime.now(UTC))).total_seconds()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def quote(body: bytes, limit: int = MAX_QUOTED_CHARS) -> str:
    """The start of what a server said, on one line, without control characters."""
    text = body[: 4 * limit].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in _NOT_SHOWN.sub(" ", text)).strip()[:limit]


def refusal_message(status: int, headers: Mapping[bytes, bytes], body: bytes) -> str:
    """One line on an answer other than 200: its status, where it points to, the start of its body."""
    try:
        phrase = " " + HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    message = f"HTTP {status}{phrase}"
    location = header(headers, b"location")
    if 300 <= status <= 399 and location is not None:
        message += f", not followed to {quote(location, 100)}"
    said = quote(body)
    return f"{message}: {said}" if said else message


def header(headers: Mapping[bytes, bytes], name: bytes) -> bytes | None:
    """The header's value, whatever the case of its name in the answer; `name` in lower case."""
    return next((value for key, value in headers.items() if key.lower() == name), None)
