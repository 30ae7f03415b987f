"""What is secret, and the forms in which a server may say it. Pure.

A text and a secret are compared by their ASCII letters and digits alone, in lower case. So blanks, line
breaks, punctuation, other cases, padding, and the two alphabets of base64 make no difference.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

MIN_LENGTH = 6
"""Shorter values, and those in `_COMMON`, are part of ordinary text. They are masked beside their header's
name only."""

_MIN_DIGITS = 8
"""The same for values without a letter."""

FRAGMENT = 8
"""So many letters and digits of a secret in a row, from anywhere in it, are taken for a part of it."""

_COMMON = frozenset(
    """
    abc accept access account accuracy admin anonymous answer api apikey apikeys application
    application/json authorization backend basic bearer blocked broken cancel chunked client cluster
    completed completion completions connection content cookie credential credentials custom default
    denied develop development digest disabled dummy ejected empty enabled encoding endpoint error
    errors excluded expired external failed failure false finished forbidden gateway header headers
    healthy http https inactive incorrect inference interactive internal interrupted invalid issued
    keep-alive key latency length lifetime loadgen localhost machine message messages missing model
    models negotiate no no-cache nobody none null number offline online password performance policy
    primary private process production prompt public random readiness reason refused region request
    requests response retries running sample samples sampling scenario secret server servers service
    session sglang stable staging starting status strategy stream streaming suspect system tenant test
    testing text/event-stream text/plain timeout token tokens traffic true unauthorized unavailable
    unknown unlimited user username verdict version weighted worker workers x yes
    """.split()  # noqa: SIM905 - a list would take a page
)
"""Words that lbrun, HTTP and servers use of themselves. A secret that is one of them is none."""

_PIECES = re.compile(r"[\s;,=\"']+")
_WORD = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]+(?![A-Za-z0-9])")
_OTHER = bytes(byte for byte in range(256) if not chr(byte).isalnum() or byte > 127)
_INVISIBLE = bytes([*range(0x21), ord("\\"), *range(0x7F, 256)])

Kind = Literal["plain", "symbols", "base64", "hex", "decimal"]
"""symbols: the value itself, where it has too few letters and digits; backslashes and blanks do not count."""


def folded(text: str, kind: Kind = "plain") -> bytes:
    """What texts and secrets are compared by."""
    deleted = _INVISIBLE if kind == "symbols" else _OTHER
    return text.encode("ascii", "ignore").translate(None, deleted).lower()


def counts(character: str, kind: Kind = "plain") -> bool:
    """Whether `folded` keeps the character."""
    deleted = _INVISIBLE if kind == "symbols" else _OTHER
    return character.isascii() and ord(character) not in deleted


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that must not be written. name: of the header that carries it."""

    name: str
    value: str = field(repr=False)

    @property
    def is_ordinary(self) -> bool:
        """The value cannot be told from ordinary text: it is short, or a common word."""
        return not _is_searchable(self.value.strip())

    @property
    def is_common(self) -> bool:
        """The value is a word that lbrun, HTTP or servers use of themselves, or stands for no secret."""
        return self.value.strip().lower() in _COMMON

    def pieces(self) -> list[str]:
        """The value, and each part of it that is a secret by itself, if it can be searched for.

        ``Bearer xyz`` has xyz, a cookie its values, ``Basic`` what was encoded, and the password of that.
        """
        value = self.value.strip()
        scheme, _, rest = value.partition(" ")
        if scheme.lower() in _COMMON and rest:
            value = rest.strip()
        found = [value, *_PIECES.split(value)]
        if scheme.lower() == "basic":
            try:
                pair = base64.b64decode(value + "==").decode("latin-1")
            except (binascii.Error, ValueError):
                pair = ""
            found += [pair, pair.partition(":")[2]]
        return [piece for piece in dict.fromkeys(found) if _is_searchable(piece)]

    def words(self) -> set[str]:
        """The words in the value, in lower case: alone they are no part of a secret."""
        return {word.lower() for word in _WORD.findall(self.value)}


def _is_searchable(value: str) -> bool:
    if value.lower() in _COMMON or len(value) < MIN_LENGTH:
        return False
    has_letter = any(c.isalpha() for c in value)
    return has_letter or len(value) >= _MIN_DIGITS


@dataclass(frozen=True, slots=True)
class Form:
    """A secret as it may be written, folded. window: so much of it in a row is a hit; all of it at most."""

    text: bytes
    window: int
    kind: Kind

    def grams(self) -> Iterator[tuple[bytes, int]]:
        """Short parts with their positions: any `window` bytes in a row of the text hold one of them."""
        size = max(3, self.window // 2)
        stride = self.window - size + 1
        for at in range(0, len(self.text) - size + 1, stride):
            yield self.text[at : at + size], at


def forms(piece: str) -> Iterator[Form]:
    """All forms of one piece."""
    plain, symbols = folded(piece), folded(piece, "symbols")
    if len(plain) >= MIN_LENGTH and not plain.isdigit():
        yield Form(plain, min(FRAGMENT, len(plain)), "plain")
    elif len(symbols) >= MIN_LENGTH and not plain.isdigit():
        yield Form(symbols, len(symbols), "symbols")
    for data in {piece.encode("latin-1", "replace"), piece.encode("utf-8", "replace")}:
        encodings: tuple[tuple[Kind, str, int], ...] = (
            *(("base64", _base64(data, before), FRAGMENT * 4 // 3 + 1) for before in range(3)),
            ("hex", data.hex(), FRAGMENT * 2),
            ("decimal", "".join(map(str, data)), 18),
        )
        for kind, encoded, window in encodings:
            text = folded(encoded)
            if len(text) >= FRAGMENT - 1:
                yield Form(text, min(window, len(text)), kind)


def _base64(data: bytes, before: int) -> str:
    """The characters that are the data's alone, wherever it stands: `before` bytes after a multiple of 3."""
    encoded = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
    end = len(encoded) if (before + len(data)) % 3 == 0 else len(encoded) - 1
    return encoded[(0, 2, 3)[before] : end]
