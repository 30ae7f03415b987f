"""How a run's samples are asked for, and how their answers are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lbrun.config import RunSettings
from lbrun.errors import ConfigError
from lbrun.formats import ChatOptions, FormatOptions, make_format
from lbrun.formats.api import RequestFormat
from lbrun.formats.options import PayloadKind
from lbrun.tokenizer import local_tokenizer


def request_format(settings: RunSettings, max_tokens: int | None = None) -> RequestFormat:
    """The request format of the run. max_tokens: in place of the configured limit.

    Raises ConfigError where the pool's backend does not speak it.
    """
    return make_format(format_name(settings), format_options(settings, max_tokens))


def format_name(settings: RunSettings) -> str:
    """Which request format the run uses."""
    return settings.model.request_format or settings.model.formats[settings.servers.backend]


def format_options(settings: RunSettings, max_tokens: int | None = None) -> FormatOptions:
    """How it asks and reads."""
    sampling = settings.effective_sampling
    if max_tokens is not None:
        sampling["max_tokens"] = min(max_tokens, sampling.get("max_tokens", max_tokens))
        sampling["min_tokens"] = min(sampling["max_tokens"], sampling.get("min_tokens", 1))
    model, servers = settings.model, settings.servers
    chat = model.chat
    return FormatOptions(
        model=settings.served_model,
        backend=servers.backend,
        prompt=model.prompt,
        stream=settings.streaming,
        sampling=sampling,
        payload=payload_kind(settings),
        retokenize=local_tokenizer(model.tokenizer),
        extra_body=model.extra_body,
        vocab_size=known_vocab_size(settings),
        chat=ChatOptions(
            system=_text(chat.system_prompt_file, "model.chat.system_prompt_file", chat.system_prompt),
            user_template=_text(chat.template_file, "model.chat.template_file", chat.template),
            json_schema=_json_schema(chat.guided_json_schema),
            image_position=chat.image_position,
        ),
    )


def known_vocab_size(settings: RunSettings) -> int | None:
    """The vocabulary that token ids must be in, before any server was asked; None where nothing tells."""
    if settings.model.vocab_size is not None:
        return settings.model.vocab_size
    tokenizer = local_tokenizer(settings.model.tokenizer)
    return None if tokenizer is None else tokenizer.vocab_size or None


def payload_kind(settings: RunSettings) -> PayloadKind:
    """What answers must carry: nothing in a plain performance run, which keeps the hot path short."""
    wanted = (
        settings.mode == "accuracy"
        or settings.scenario.audit_conf is not None
        or settings.report.record_outputs
    )
    return settings.model.payload if wanted else "none"


def left_out(fmt: RequestFormat) -> tuple[str, ...]:
    """Sampling keys that are not sent, since the servers' backend does not take them."""
    return getattr(fmt, "left_out", ())


def _text(path: Path | None, key: str, otherwise: str | None) -> str | None:
    """The text of the file, or otherwise the text where there is none."""
    if path is None:
        return otherwise
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: cannot read {path}: {error}") from None


def _json_schema(path: Path | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    import msgspec

    try:
        schema = msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise ConfigError(f"model.chat.guided_json_schema: {path} is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ConfigError(f"model.chat.guided_json_schema: {path} holds no JSON object; write a JSON schema")
    return schema
