"""What pydantic found wrong, in the user's words: ``key: what is wrong; what to write instead``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import ErrorDetails

from lbrun.config import keys
from lbrun.config.base import PROBLEM

_SECRET_SECTIONS = ("servers.headers", "servers.headers_env", "servers.api_key_env")
"""Values under these keys are never repeated: they may be secrets that were put in the wrong place."""

_LONGEST = 80


class Problem(NamedTuple):
    """keys: every key that takes part, the one to name first. text: what is wrong; what to write instead."""

    keys: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.keys[0]}: {self.text}"


def from_pydantic(error: ErrorDetails) -> Problem:
    """One of a ValidationError's errors; take them from ``errors(include_url=False)``."""
    name = dotted(error["loc"])
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    if kind == PROBLEM:
        return Problem((name,), context["message"])
    if kind == "extra_forbidden":
        return Problem((name,), unknown_key(name))
    if kind == "missing":
        return Problem((name,), f"it is missing; it says {_meaning(name)}")
    return Problem((name,), f"{_what(kind, value, context, name)}; {_instead(kind, context, name)}")


def unknown_key(name: str) -> str:
    """What is said of a key that does not exist, without the key itself."""
    section, _, last = name.rpartition(".")
    if section and last == section.rpartition(".")[2]:
        return f"the keys of a file in {section}/ are below {section} already; leave the line `{last}:` out"
    guess = keys.closest(name)
    if guess is not None:
        return f"there is no such key; did you mean {guess}?"
    siblings = [k.rpartition(".")[2] for k in keys.all_keys() if k.rpartition(".")[0] == section]
    where = f"{section} has" if section else "there are"
    return f"there is no such key; {where} {', '.join(siblings)}" if siblings else "there is no such key"


def dotted(loc: Sequence[int | str]) -> str:
    """A place in the configuration: ``servers.urls[1]``."""
    name = ""
    for part in loc:
        if part == "[key]":  # pydantic's mark for a mapping's key; the key itself has been named
            continue
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def shown(value: Any, name: str) -> str:
    """A value as it is repeated to the user; "this" where it may be a secret."""
    if any(name == s or name.startswith((s + ".", s + "[")) for s in _SECRET_SECTIONS):
        return "this"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _what(kind: str, value: Any, context: Mapping[str, Any], name: str) -> str:
    text = shown(value, name)
    if kind == "literal_error":
        return f"{text} is not known"
    if kind in ("greater_than", "greater_than_equal"):
        return f"{text} is too small"
    if kind in ("less_than", "less_than_equal"):
        return f"{text} is too large"
    if kind in ("too_short", "string_too_short"):
        return f"{text} is empty"
    wanted = _wanted(kind)
    return (
        f"{text} is not {wanted[0]}" if wanted else f"{text}: {context.get('error', kind.replace('_', ' '))}"
    )


def _instead(kind: str, context: Mapping[str, Any], name: str) -> str:
    unit = keys.unit_of(name)
    if kind == "literal_error":
        return f"choose one of {str(context['expected']).replace(' or ', ', ').replace(chr(39), '')}"
    for bound, words in (("ge", "at least"), ("gt", "a number above"), ("le", "at most"), ("lt", "below")):
        if bound in context:
            return f"write {words} {context[bound]:g}{f' ({unit})' if unit else ''}".replace(
                "write below", "write a number below"
            )
    wanted = _wanted(kind)
    if wanted:
        return f"write {wanted[1]}{f' ({unit})' if unit else ''}"
    if kind in ("too_short", "string_too_short"):
        return "write something, or leave the key out"
    return f"it says {_meaning(name)}"


def _wanted(kind: str) -> tuple[str, str] | None:
    if kind.startswith("int_"):
        return "a whole number", "a whole number"
    if kind.startswith(("float_", "finite_number")):
        return "a number", "a number"
    if kind.startswith("bool_"):
        return "true or false", "true or false"
    if kind.startswith("string_"):
        return "text", "text, in quotes"
    if kind.startswith(("tuple_", "list_")):
        return "a list", "a list: [a,b]"
    if kind.startswith(("dict_", "model_", "mapping_")):
        return "a group of keys", "keys below it"
    if kind.startswith("path_"):
        return "a path", "the path of a file"
    return None


def _meaning(name: str) -> str:
    key = keys.all_keys().get(name.split("[", 1)[0])
    return key.meaning if key and key.meaning else "what docs/configuration.md has for it"


def near(word: str, options: Sequence[str]) -> str:
    """A question after the option that was probably meant, to be put at the end of a message; or ""."""
    found = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""
