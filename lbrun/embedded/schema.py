"""Guided decoding: a JSON document that a schema accepts, with simple values drawn from the prompt's key.

Covers what benchmark schemas use: objects, arrays, strings, numbers, booleans, null, enum, const,
anyOf, oneOf, allOf with one member, and local references.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lbrun.embedded.words import WORDS

_DEEPEST = 32  # a recursive schema has to end somewhere
_LONGEST = 10_000  # and what a schema asks for at least, too


def fitting_json(schema: object, key: bytes) -> str:
    """The JSON text of a document that fits the schema; the same for the same key."""
    return msgspec.json.encode(_Filler(schema, key).value(schema, "", 0)).decode()


class _Filler:
    def __init__(self, root: object, key: bytes) -> None:
        self._root, self._key = root, key

    def _draw(self, where: str) -> int:
        return int.from_bytes(hashlib.blake2b(where.encode(), digest_size=8, key=self._key).digest(), "big")

    def value(self, schema: object, where: str, depth: int) -> Any:
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return None
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][self._draw(where) % len(schema["enum"])]
        if isinstance(schema.get("$ref"), str):
            return self.value(self._resolved(schema["$ref"]), where, depth + 1)
        for choice in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(choice), list) and schema[choice]:
                return self.value(schema[choice][0], where, depth + 1)
        return self._typed(schema, where, depth)

    def _typed(self, schema: Mapping[str, Any], where: str, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        match kind:
            case "object":
                return self._object(schema, where, depth)
            case "array":
                n = max(1, min(_bound(schema, "minItems") or 0, _LONGEST))
                items = schema.get("items")
                return [self.value(items, f"{where}/{i}", depth + 1) for i in range(n)]
            case "string":
                return self._string(schema, where)
            case "integer" | "number":
                return self._number(schema, where)
            case "boolean":
                return self._draw(where) % 2 == 0
            case None if "properties" in schema:
                return self._object(schema, where, depth)
            case _:
                return None

    def _object(self, schema: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return {}
        return {name: self.value(s, f"{where}/{name}", depth + 1) for name, s in properties.items()}

    def _string(self, schema: Mapping[str, Any], where: str) -> str:
        drawn = self._draw(where)
        words = [WORDS[(drawn >> shift) % len(WORDS)] for shift in (0, 16, 32)]
        text = " ".join(words)
        text = text.ljust(min(_bound(schema, "minLength") or 0, _LONGEST), ".")
        longest = _bound(schema, "maxLength")
        return text if longest is None else text[: max(0, longest)]

    def _number(self, schema: Mapping[str, Any], where: str) -> int:
        low, high = _bound(schema, "minimum", math.ceil), _bound(schema, "maximum", math.floor)
        above = _bound(schema, "exclusiveMinimum", math.floor)
        below = _bound(schema, "exclusiveMaximum", math.ceil)
        low = low if above is None else above + 1
        high = high if below is None else below - 1
        if low is not None:
            return low
        return self._draw(where) % 100 if high is None else high

    def _resolved(self, reference: str) -> object:
        found: object = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


def _bound(schema: Mapping[str, Any], name: str, rounded: Callable[[float], int] = int) -> int | None:
    """A number of the schema as an integer of at most 64 bits; None where it has none."""
    value = schema.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
        return None
    return rounded(value)
