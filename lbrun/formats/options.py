"""What a request format needs to be told: plain values, independent of the configuration schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Backend = Literal["vllm", "sglang", "openai"]
PromptKind = Literal["token_ids", "text"]
PayloadKind = Literal["none", "token_ids", "text"]
FormatName = Literal["completions", "chat", "sglang_generate"]


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How a chat request is put together around a sample.

    system: a system message, put first; None sends none.
    user_template: the user's text for a product, with a ``{role}`` placeholder for each text field
    (``{title}``, ``{description}``, ``{categories}``); braces around anything but a plain word are
    literal text, so a template may show JSON.
    json_schema: guided decoding by this schema; None leaves the answer free (MLPerf v6.1's rule).
    image_position: whether the image stands before or after the text of its message.
    """

    system: str | None = None
    user_template: str | None = None
    json_schema: Mapping[str, Any] | None = None
    image_position: Literal["before", "after"] = "after"


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """The settings of one run's request format.

    model: the served model's id; SGLang's ``/generate`` has no such field and ignores it.
    backend: what kind of server answers, which decides on fields beyond OpenAI's own.
    prompt: what a prompt is sent as; chat always sends messages.
    stream: ask for an SSE stream instead of one whole answer.
    sampling: by OpenAI's names (``temperature``, ``top_p``, ``top_k``, ``seed``, ``max_tokens``,
    ``min_tokens``), and any further keys of the server; None values are not sent.
    payload: what `Answer.payload` and the first token's payload carry.
    retokenize: text to token ids with a local tokenizer, used where ``payload`` is ``token_ids`` and the
    server returns text alone.
    extra_body: merged into the body, over everything but the fields that reading the answer rests on.
    vocab_size: token ids of answers are below it; None where it is not known.
    max_event_bytes: longest event of a stream. max_gathered_bytes: longest stream whose payload is kept.
    """

    model: str
    backend: Backend
    prompt: PromptKind = "token_ids"
    stream: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    payload: PayloadKind = "none"
    retokenize: Callable[[str], list[int]] | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    chat: ChatOptions = field(default_factory=ChatOptions)
    vocab_size: int | None = None
    max_event_bytes: int = 1 << 20
    max_gathered_bytes: int = 64 << 20
