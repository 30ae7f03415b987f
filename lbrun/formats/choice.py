"""Which request format a run uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

from lbrun.errors import ConfigError
from lbrun.formats.chat import make_chat
from lbrun.formats.completions import make_completions
from lbrun.formats.json_format import JsonFormat
from lbrun.formats.options import FormatName, FormatOptions
from lbrun.formats.sglang_generate import make_sglang_generate

_MAKERS: dict[str, Callable[[FormatOptions], JsonFormat]] = {
    "completions": make_completions,
    "chat": make_chat,
    "sglang_generate": make_sglang_generate,
}
FORMAT_NAMES: tuple[str, ...] = get_args(FormatName)


def make_format(name: str, options: FormatOptions) -> JsonFormat:
    """The request format of that name. Raises ConfigError for an unknown name or options it cannot serve."""
    if name not in _MAKERS:
        raise ConfigError(f"model.request_format: {name!r} is unknown; write one of {', '.join(_MAKERS)}")
    return _MAKERS[name](options)


def choose(backend: str, model_formats: Sequence[str], requested: str | None = None) -> str:
    """The format to use with a backend.

    model_formats: what the model can be asked by, the preferred one first. requested: the user's wish,
    None to take the first that the backend serves. Raises ConfigError where there is none.
    """
    allowed = ", ".join(model_formats)
    if requested is not None:
        if requested not in model_formats:
            raise ConfigError(
                f"model.request_format: {requested} does not fit this model; write one of {allowed}"
            )
        if not _serves(backend, requested):
            others = [name for name in model_formats if _serves(backend, name)]
            instead = f"write {' or '.join(others)}" if others else "use servers.backend=sglang"
            raise ConfigError(
                f"model.request_format: {requested} is SGLang's own, and servers.backend is {backend}; "
                f"{instead}"
            )
        return requested
    for name in model_formats:
        if _serves(backend, name):
            return name
    raise ConfigError(f"servers.backend: {backend} serves none of the model's request formats ({allowed})")


def _serves(backend: str, name: str) -> bool:
    return name != "sglang_generate" or backend == "sglang"
