"""OpenAI's ``/v1/chat/completions``."""

from __future__ import annotations

from typing import Any

import msgspec

from lbrun.attempt import BadAnswer, FailureKind
from lbrun.formats.chat_messages import MessageWriter
from lbrun.formats.json_format import JsonFormat
from lbrun.formats.openai import OpenAiReader
from lbrun.formats.options import FormatOptions
from lbrun.formats.request import (
    check_reserved,
    frame,
    sampling_fields,
    stream_fields,
    token_id_fields,
)


class _Message(msgspec.Struct, gc=False):
    """A whole message, or a delta of one. Reasoning has two names: vLLM's, and SGLang's and older vLLM's."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: Any = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    response_token_ids: list[int] | None = None  # SGLang's name for them, in whole answers


_NO_MESSAGE = _Message()


class ChatReader(OpenAiReader[_Choice]):
    """Reads whole answers and events of ``/v1/chat/completions``.

    An answer's text is its content alone; reasoning and tool calls are tokens, which the server counts.
    """

    def __init__(self) -> None:
        super().__init__(_Choice)

    def text(self, choice: _Choice) -> str:
        """The content; it is null beside reasoning or tool calls."""
        return (choice.delta or choice.message or _NO_MESSAGE).content or ""

    def ids(self, choice: _Choice) -> list[int] | None:
        """The choice's token ids."""
        return choice.response_token_ids if choice.token_ids is None else choice.token_ids

    def finish_reason(self, choice: _Choice) -> str | None:
        """The choice's finish reason."""
        return choice.finish_reason

    def shows_token(self, choice: _Choice) -> bool:
        """Whether there is content, reasoning or a tool call."""
        delta = choice.delta or _NO_MESSAGE
        return bool(delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls)

    def is_silent_token(self, choice: _Choice) -> bool:
        """An empty text in mid-answer. With a role it is none: that event only opens the message."""
        delta = choice.delta or _NO_MESSAGE
        has_empty_text = delta.content is not None or delta.reasoning is not None
        return has_empty_text and delta.role is None and choice.finish_reason is None

    def check_whole(self, choice: _Choice) -> None:
        """A whole answer has a message."""
        if choice.message is None:
            raise BadAnswer(FailureKind.MALFORMED, "the answer's first choice has no message")


def make_chat(options: FormatOptions) -> JsonFormat:
    """The format for ``/v1/chat/completions``. Raises ConfigError for options it cannot serve."""
    check_reserved(sampling=options.sampling, extra_body=options.extra_body)
    sampling, left_out = sampling_fields(options)
    fields = sampling | stream_fields(options) | token_id_fields(options, "chat")
    if options.chat.json_schema is not None:
        schema = {"name": "answer", "schema": dict(options.chat.json_schema), "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    body = frame({"model": options.model}, "messages", fields | dict(options.extra_body))
    writer = MessageWriter(options.chat)
    return JsonFormat(
        "chat",
        "/v1/chat/completions",
        options,
        body=lambda sample: body.around(writer.messages(sample)),
        reader=ChatReader(),
        left_out=left_out,
    )
