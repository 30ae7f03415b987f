"""OpenAI's ``/v1/completions``, with vLLM's and SGLang's ``return_token_ids``."""

from __future__ import annotations

import msgspec

from lbrun.datasets.api import Sample
from lbrun.formats.json_format import JsonFormat
from lbrun.formats.openai import OpenAiReader
from lbrun.formats.options import FormatOptions
from lbrun.formats.request import (
    check_reserved,
    frame,
    prompt_json,
    sampling_fields,
    stream_fields,
    token_id_fields,
)


class _Choice(msgspec.Struct, gc=False):
    text: str | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class CompletionsReader(OpenAiReader[_Choice]):
    """Reads whole answers and events of ``/v1/completions``."""

    def __init__(self) -> None:
        super().__init__(_Choice)

    def text(self, choice: _Choice) -> str:
        """The choice's text."""
        return choice.text or ""

    def ids(self, choice: _Choice) -> list[int] | None:
        """The choice's token ids."""
        return choice.token_ids

    def finish_reason(self, choice: _Choice) -> str | None:
        """The choice's finish reason."""
        return choice.finish_reason

    def shows_token(self, choice: _Choice) -> bool:
        """Whether there is text."""
        return bool(choice.text)

    def is_silent_token(self, choice: _Choice) -> bool:
        """An empty text in mid-answer: vLLM sends an event for every token."""
        return choice.text is not None and choice.finish_reason is None


def make_completions(options: FormatOptions) -> JsonFormat:
    """The format for ``/v1/completions``. Raises ConfigError for options it cannot serve."""
    check_reserved(sampling=options.sampling, extra_body=options.extra_body)
    sampling, left_out = sampling_fields(options)
    fields = sampling | stream_fields(options) | token_id_fields(options, "completions")
    body = frame({"model": options.model}, "prompt", fields | dict(options.extra_body))
    prompt = options.prompt

    def encode(sample: Sample) -> bytes:
        return body.around(prompt_json(sample, prompt))

    return JsonFormat(
        "completions",
        "/v1/completions",
        options,
        body=encode,
        reader=CompletionsReader(),
        left_out=left_out,
    )
