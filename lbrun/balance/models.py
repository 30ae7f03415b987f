"""Reading a server's model list (``GET /v1/models``), and judging it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from lbrun.balance.states import ProbeOutcome

Fact: TypeAlias = str | int | None
"""One thing that a server tells of itself; None: it answers, and does not tell this."""

_NO_FACTS: Mapping[str, Fact] = MappingProxyType({})


class ModelInfo(NamedTuple):
    """What a server says about its models.

    listed: the ids it lists. max_model_len: context length in tokens of the served model, None where it does
    not tell. vocab_size: likewise. note: what could not be checked, "" if all was. facts: by which another
    model, or another release, is told apart: ``model`` (the id of the entry that serves), ``root``,
    ``owned_by``, ``max_model_len``, ``vocab_size``, and what else its backend tells. One that could not be
    read is not among them; none are where there is no list.
    """

    listed: tuple[str, ...] = ()
    max_model_len: int | None = None
    vocab_size: int | None = None
    note: str = ""
    facts: Mapping[str, Fact] = _NO_FACTS


class ModelVerdict(NamedTuple):
    """Whether the served model is there, in words, and what is known of it."""

    outcome: ProbeOutcome
    detail: str
    info: ModelInfo | None = None


def judge_models(status: int, body: bytes, *, model: str, backend: str) -> ModelVerdict:
    """Judge an answer of ``GET /v1/models``.

    vLLM serves the ids it lists and no others. SGLang lists one and serves any name. Other OpenAI-compatible
    servers may have no usable list (`transformers serve` answers 500): taken as they are, with a note.
    """
    lenient = backend == "openai"
    if status == 503:
        return ModelVerdict(ProbeOutcome.LOADING, "503 to /v1/models: loading")
    if status in (401, 403):
        detail = f"{status} to /v1/models: it wants an API key; name its variable in servers.api_key_env"
        return ModelVerdict(ProbeOutcome.ERROR, detail)
    entries = _entries(body) if status == 200 else None
    if entries is None:
        what = "no model list in the answer" if status == 200 else f"{status}"
        detail = f"{what} to /v1/models"
        if lenient:
            note = f"{detail}: the served model is not checked"
            return ModelVerdict(ProbeOutcome.OK, note, ModelInfo(note=note))
        return ModelVerdict(ProbeOutcome.ERROR, f"{detail}; not {backend}? see servers.backend")
    listed = tuple(entry["id"] for entry in entries)
    if not listed:
        return ModelVerdict(ProbeOutcome.LOADING, "lists no model yet")
    entry = next((entry for entry in entries if entry["id"] == model), None)
    if entry is not None:
        return ModelVerdict(ProbeOutcome.OK, f"serves {model!r}", _info(listed, entry))
    if backend == "sglang":
        note = f"lists {_quoted(listed)} and serves any name, {model!r} as well"
        return ModelVerdict(ProbeOutcome.OK, note, _info(listed, entries[0])._replace(note=note))
    hint = f"if that is the model, write 'servers.served_model={listed[0]}'"
    detail = f"lists {_quoted(listed)}, not {model!r}; {hint}"
    return ModelVerdict(ProbeOutcome.WRONG_MODEL, detail, _info(listed, entries[0]))


def _entries(body: bytes) -> list[dict[str, Any]] | None:
    """The list's entries that have an id; None where there is no list."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        return None
    return [entry for entry in data if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _info(listed: tuple[str, ...], entry: dict[str, Any]) -> ModelInfo:
    meta = entry.get("meta")  # llama.cpp's place for the vocabulary
    vocab_size = entry.get("vocab_size") or (meta.get("n_vocab") if isinstance(meta, dict) else None)
    max_model_len, vocab_size = _count(entry.get("max_model_len")), _count(vocab_size)
    facts: dict[str, Fact] = {"model": entry["id"]}
    for name in ("root", "owned_by"):
        value = entry.get(name)
        facts[name] = value if isinstance(value, str) else None
    facts |= {"max_model_len": max_model_len, "vocab_size": vocab_size}
    return ModelInfo(listed, max_model_len, vocab_size, facts=facts)


def _count(value: object) -> int | None:
    """A count that makes sense, else None: a server may say anything."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else None


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
