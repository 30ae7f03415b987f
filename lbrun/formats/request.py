"""Request bodies: which fields are sent, and how a sample's bytes get between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from lbrun.datasets.api import Sample
from lbrun.errors import ConfigError
from lbrun.formats.options import FormatName, FormatOptions, PromptKind

# Fields on which reading the answer rests, or that would ask for several answers at once.
_RESERVED = frozenset(
    {
        "model",
        "prompt",
        "messages",
        "input_ids",
        "text",
        "stream",
        "stream_options",
        "n",
        "best_of",
        "echo",
        "use_beam_search",
    }
)

# The sampling fields of OpenAI's own API reference. Servers of the kind `openai` get no others: some
# (transformers serve: 422) refuse fields that they do not know.
OPENAI_SAMPLING = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "presence_penalty",
        "reasoning_effort",
        "seed",
        "stop",
        "temperature",
        "top_p",
        "user",
    }
)


class Frame(NamedTuple):
    """The parts of a body before and after what the sample puts in; both are JSON fragments."""

    before: bytes
    after: bytes

    def around(self, value: bytes) -> bytes:
        """The body with a JSON value in its place."""
        return self.before + value + self.after


def frame(leading: Mapping[str, Any], key: str, trailing: Mapping[str, Any]) -> Frame:
    """A body with the fields `leading`, then `key` with its value still missing, then `trailing`."""
    before = msgspec.json.encode({**leading, key: None}).removesuffix(b"null}")
    after = msgspec.json.encode(trailing)
    return Frame(before, b"," + after[1:] if trailing else b"}")


def check_reserved(**groups: Mapping[str, Any]) -> None:
    """Raise ConfigError for keys of any group that would spoil reading the answer."""
    problems = [
        f"{group}.{key}: is set by the request format itself; leave it out"
        for group, fields in groups.items()
        for key in fields
        if key in _RESERVED
    ]
    if problems:
        raise ConfigError(problems)


def sampling_fields(options: FormatOptions) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The sampling fields for an OpenAI-compatible server, and the names of those left out.

    vLLM and SGLang take all keys at the top level; ``top_k`` and ``min_tokens`` are among their own. The
    kind `openai` gets only OpenAI's keys; what its server knows beyond them goes into ``extra_body``.
    """
    given = {key: value for key, value in options.sampling.items() if value is not None}
    if options.backend != "openai":
        return given, ()
    left_out = tuple(key for key in given if key not in OPENAI_SAMPLING)
    return {key: value for key, value in given.items() if key in OPENAI_SAMPLING}, left_out


def stream_fields(options: FormatOptions) -> dict[str, Any]:
    """The fields that ask an OpenAI-compatible server for a stream with usage at its end."""
    if not options.stream:
        return {}
    return {"stream": True, "stream_options": {"include_usage": True}}


def prompt_json(sample: Sample, prompt: PromptKind) -> bytes:
    """The sample's prompt as a JSON value. Raises ValueError where the sample has none of that kind."""
    if prompt == "token_ids":
        if sample.token_ids is None:
            raise ValueError(f"sample {sample.index} has no token ids")
        return sample.token_ids
    if sample.text is None:
        raise ValueError(f"sample {sample.index} has no text")
    return msgspec.json.encode(sample.text)


def token_id_fields(options: FormatOptions, name: FormatName) -> dict[str, Any]:
    """The field that asks an OpenAI-compatible server for token ids, where they are the payload.

    It is vLLM's and SGLang's; SGLang refuses it in chat streams. Raises ConfigError where neither the
    server nor a local tokenizer would give token ids.
    """
    if options.payload != "token_ids":
        return {}
    if options.backend == "vllm" or (options.backend == "sglang" and not (name == "chat" and options.stream)):
        return {"return_token_ids": True}
    if options.retokenize is None and not options.extra_body.get("return_token_ids"):
        streams = " streams" if options.stream else ""
        raise ConfigError(
            f"model.request_format: {name}{streams} on servers.backend={options.backend} return no token "
            "ids to log; use another format, or write model.tokenizer=tokenizer.json or model.payload=text"
        )
    return {}
