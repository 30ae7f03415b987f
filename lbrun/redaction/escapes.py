r"""Undoes the escapes of text formats, and keeps where each character came from. Pure.

One step undoes one level of all of them at once, so that a mixture, or a key of which only some characters
are escaped, needs no step more; JSON within JSON, or a URL within a URL, is undone by the next step:

    percent       %2F  %2f  %u002F
    JSON, Python  \u002F  \u{2F}  \U0000002F  \x2f  \057  \/  \"  \n, each after any number of backslashes
    HTML, XML     &amp;  &#x2F;  &#47;
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

_ESCAPE = re.compile(
    r"""%u[0-9A-Fa-f]{4} | %[0-9A-Fa-f]{2}
    | \\+u\{[0-9A-Fa-f]{1,6}\} | \\+u[0-9A-Fa-f]{4} | \\+U[0-9A-Fa-f]{8}
    | \\+x[0-9A-Fa-f]{2} | \\+[0-3][0-7]{2} | \\+[abfnrtv] | \\+[^\\\sA-Za-z0-9&%] | \\{2,}
    | &\#[xX][0-9A-Fa-f]{1,6};? | &\#[0-9]{1,7};? | &[A-Za-z][A-Za-z0-9]{1,31};""",
    re.VERBOSE,
)
_MAX_STEPS = 4
_HEX = re.compile(r"[0-9A-Fa-f]+")


def levels(text: str) -> list[str]:
    """The text itself, and the text after each step that undoes anything."""
    found = [text]
    while len(found) <= _MAX_STEPS and ("%" in text or "\\" in text or "&" in text):
        undone = _ESCAPE.sub(lambda match: _character(match[0]), text)
        if undone == text:
            break
        found.append(undone)
        text = undone
    return found


@dataclass(frozen=True, slots=True)
class Traced:
    """A text made from another one. Character i of it came from ``origin[starts[i]:ends[i]]``."""

    text: str
    starts: list[int]
    ends: list[int]


def traced_levels(text: str) -> list[Traced]:
    """The same as `levels`, with the origin of each character. Slower by far: for texts with a hit."""
    now = Traced(text, list(range(len(text))), list(range(1, len(text) + 1)))
    found = [now]
    while len(found) <= _MAX_STEPS:
        undone = _step(now)
        if undone.text == now.text:
            break
        found.append(undone)
        now = undone
    return found


def _step(before: Traced) -> Traced:
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for match in _ESCAPE.finditer(before.text):
        begin, end = match.span()
        character = _character(match[0])
        pieces += (before.text[at:begin], character)
        starts += before.starts[at:begin] + [before.starts[begin]] * len(character)
        ends += before.ends[at:begin] + [before.ends[end - 1]] * len(character)
        at = end
    pieces.append(before.text[at:])
    return Traced("".join(pieces), starts + before.starts[at:], ends + before.ends[at:])


def _character(escape: str) -> str:
    """What an escape stands for."""
    if escape[0] == "&":
        return html.unescape(escape)
    rest = escape.lstrip("\\%")
    if not rest:
        return "\\"
    if escape[0] == "\\":
        if rest[0] in "abfnrtv":
            return " "
        if rest[0].isdigit():
            return chr(int(rest, 8))
        if rest[0] not in "uUx":
            return rest
    digits = _HEX.search(rest)
    try:
        return chr(int(digits[0], 16)) if digits else escape
    except (ValueError, OverflowError):  # beyond Unicode
        return escape
