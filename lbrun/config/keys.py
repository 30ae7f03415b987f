"""Every key of the configuration with its type, default, bounds, unit and meaning, read from the schema.

Serves the documentation, the refusal of unknown keys, and the guess at what was meant.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from lbrun.config.base import Section
from lbrun.config.schema import RunSettings

_UNITS = {
    "_per_s": "per second",
    "_s": "seconds",
    "_ms": "milliseconds",
    "_us": "microseconds",
    "_qps": "queries per second",
    "_mib": "MiB",
}
_SIGNS = {Ge: ("at least", "ge"), Gt: ("above", "gt"), Le: ("at most", "le"), Lt: ("below", "lt")}


@dataclass(frozen=True, slots=True)
class Key:
    """One key. open: it holds keys of the user's own choice. section: it holds the keys that follow it."""

    name: str
    type: str
    default: Any
    required: bool
    bounds: str
    unit: str
    meaning: str
    section: bool = False
    open: bool = False


def unit_of(name: str) -> str:
    """The unit that a key's name ends with, in words; "" where it has none."""
    last = name.rsplit(".", 1)[-1]
    return next((unit for suffix, unit in _UNITS.items() if last.endswith(suffix)), "")


@cache
def all_keys() -> dict[str, Key]:
    """The keys by their dotted names, in the order of the schema."""
    return {key.name: key for key in _walk(RunSettings, "")}


def is_known(name: str) -> bool:
    """Whether a dotted name is a key, a section, or lies in a mapping of the user's own choice."""
    keys = all_keys()
    if name in keys:
        return True
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        key = keys.get(".".join(parts[:end]))
        if key is not None:
            # An element of a list (servers.urls.0) is reached by its number.
            return key.open or (
                key.type.startswith("list") and parts[end:] == [parts[-1]] and parts[-1].isdigit()
            )
    return False


def closest(name: str) -> str | None:
    """The key that was probably meant: the same section first, then the same last part anywhere."""
    name = name.lower()
    names = [key.name for key in all_keys().values() if not key.section]
    section, _, last = name.rpartition(".")
    siblings = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == section}
    near = difflib.get_close_matches(last, siblings, n=1, cutoff=0.7)
    if near:
        return siblings[near[0]]
    elsewhere = [n for n in names if n.rpartition(".")[2] == last]
    if elsewhere:
        return elsewhere[0]
    whole = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    return whole[0] if whole else None


def _walk(section: type[Section], prefix: str) -> Iterator[Key]:
    for field_name, field in section.model_fields.items():
        name = prefix + (field.alias or field_name)
        inner = _section_of(field.annotation)
        bounds, unit = _bounds(field), unit_of(name)
        meaning = field.description or ""
        if inner is not None:
            meaning = meaning or (inner.__doc__ or "").strip().splitlines()[0]
            yield Key(name, "section", _default(field), field.is_required(), "", "", meaning, section=True)
            yield from _walk(inner, name + ".")
        else:
            is_open = _is_mapping(field.annotation)
            default, required = _default(field), field.is_required()
            yield Key(
                name, type_name(field.annotation), default, required, bounds, unit, meaning, open=is_open
            )


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _section_of(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for arg in get_args(annotation) if (found := _section_of(arg))), None)
    return None


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) in (dict, Mapping)


def type_name(annotation: Any) -> str:
    """A type in words: ``int or null``, ``list of text``, ``a | b``."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(args[0])
    if origin is Literal:
        return ", ".join(str(arg) for arg in args)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(arg) for arg in args)
    if origin is tuple:
        return f"list of {type_name(args[0])}"
    if _is_mapping(annotation):
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "mapping"
    names = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path"}
    return names.get(annotation, "null" if annotation is type(None) else "any")


def _bounds(field: FieldInfo) -> str:
    parts = []
    for mark in field.metadata:
        if type(mark) in _SIGNS:
            word, attribute = _SIGNS[type(mark)]
            parts.append(f"{word} {getattr(mark, attribute)}")
    return ", ".join(parts)
