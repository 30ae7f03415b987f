"""Why a request body cannot be read, in the terms of the validation library that the real servers use.

Off the fast path: only a body that msgspec refused comes here, to be read again and explained.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgspec


class Problem(NamedTuple):
    """One validation error. loc: path from the body; position in bytes for broken JSON."""

    kind: str
    loc: tuple[str | int, ...]
    message: str
    value: object
    context: dict[str, object] | None = None


class NotTextError(Exception):
    """The body is not UTF-8."""


_TYPES = {
    "int": ("int_type", "Input should be a valid integer"),
    "float": ("float_type", "Input should be a valid number"),
    "bool": ("bool_type", "Input should be a valid boolean"),
    "str": ("string_type", "Input should be a valid string"),
    "array": ("list_type", "Input should be a valid list"),
    "object": ("dict_type", "Input should be a valid dictionary"),
}
_MSGSPEC = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)


def explain(body: bytes, error: msgspec.MsgspecError) -> Problem:
    """What is wrong with a body that msgspec refused. Raises NotTextError."""
    if not body:
        return Problem("missing", ("body",), "Field required", None)
    try:
        document = json.loads(body.decode())
    except UnicodeDecodeError:
        raise NotTextError from None
    except json.JSONDecodeError as e:
        return Problem("json_invalid", ("body", e.pos), "JSON decode error", {}, {"error": e.msg})
    except RecursionError:
        return Problem("json_invalid", ("body", 0), "JSON decode error", {}, {"error": "nested too deeply"})
    if not isinstance(document, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        return Problem("model_attributes_type", ("body",), message, document)
    return _explain_field(document, str(error))


def _explain_field(document: dict[str, Any], said: str) -> Problem:
    found = _MSGSPEC.fullmatch(said)
    what, path = (found["what"], found["path"] or "") if found else (said, "")
    steps = tuple(int(s[1:-1]) if s.startswith("[") else s for s in re.findall(r"\w+|\[\d+\]", path))
    missing = re.search(r"missing required field `(\w+)`", what)
    if missing:
        return Problem("missing", ("body", *steps, missing[1]), "Field required", _at(document, steps))
    value = _at(document, steps)
    expected = re.search(r"Expected `(\w+)", what)
    kind, message = _TYPES.get(expected[1] if expected else "", ("value_error", what))
    if kind == "int_type" and isinstance(value, str):
        kind, message = "int_parsing", f"{message}, unable to parse string as an integer"
    return Problem(kind, ("body", *steps), message, value)


def _at(document: Any, steps: tuple[str | int, ...]) -> Any:
    for step in steps:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return None
    return document
