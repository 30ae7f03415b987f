"""SGLang's own ``/generate``: token ids or text in, text and token ids out."""

from __future__ import annotations

from typing import Any

import msgspec

from lbrun.attempt import BadAnswer, FailureKind
from lbrun.datasets.api import Sample
from lbrun.errors import ConfigError
from lbrun.formats.json_format import JsonFormat
from lbrun.formats.options import FormatOptions
from lbrun.formats.reading import Reading, decode_json, error_in_answer, raise_if_error_body
from lbrun.formats.request import check_reserved, frame, prompt_json

_SGLANG_NAMES = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens", "seed": "sampling_seed"}


class _Finish(msgspec.Struct, gc=False):
    type: str = ""
    message: Any = None


class _Meta(msgspec.Struct, gc=False):
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    finish_reason: _Finish | str | None = None


class _Generated(msgspec.Struct, gc=False):
    meta_info: _Meta | None = None
    error: Any = None


class _GeneratedWithOutput(_Generated, gc=False):
    text: str | None = None
    output_ids: list[int] | None = None


_counts: msgspec.json.Decoder[_Generated] = msgspec.json.Decoder(_Generated)
_output: msgspec.json.Decoder[_GeneratedWithOutput] = msgspec.json.Decoder(_GeneratedWithOutput)


class SglangGenerateReader:
    """Reads whole answers and events of ``/generate``.

    with_output: read text and token ids too; they are there in any case, and skipping them is most of
    the cost of a long answer. An event of a stream repeats all that came before it; it carries a token as
    soon as its count says so.
    """

    cumulative = True

    def __init__(self, *, with_output: bool) -> None:
        self._with_output = with_output

    def whole(self, body: bytes) -> Reading:
        """Read a whole answer."""
        generated: _Generated
        if self._with_output:
            generated = decode_json(_output, body)
        else:
            generated = decode_json(_counts, body)
        if generated.error:
            raise error_in_answer(generated.error)
        meta = generated.meta_info
        if meta is None:
            raise_if_error_body(body)
            raise BadAnswer(FailureKind.MALFORMED, "the answer has no meta_info")
        n_tokens = meta.completion_tokens
        if n_tokens is None and not self._with_output:
            generated = decode_json(_output, body)  # the ids can be counted
        text: str | None = None
        ids: list[int] | None = None
        if isinstance(generated, _GeneratedWithOutput):
            text, ids = generated.text, generated.output_ids
        finish_reason = _finish_reason(meta.finish_reason)
        has_token = bool(n_tokens or ids)
        return Reading(has_token, text or "", ids or (), finish_reason, n_tokens, meta.prompt_tokens or 0)

    def event(self, data: bytes) -> Reading:
        """Read one event: the answer so far."""
        reading = self.whole(data)
        if self._with_output and reading.n_tokens is not None and len(reading.ids) != reading.n_tokens:
            raise BadAnswer(
                FailureKind.MALFORMED,
                f"an event counts {reading.n_tokens} tokens so far and has {len(reading.ids)} token ids; "
                "start SGLang without incremental streaming output",
            )
        return reading

    def pieces(self, events: bytes) -> tuple[str, list[int]]:
        """Never asked for: the last event is the whole answer."""
        raise NotImplementedError("a cumulative stream has no pieces to put together")


def _finish_reason(reason: _Finish | str | None) -> str | None:
    """The reason's name. Raises BadAnswer where it is an abort that says why."""
    if not isinstance(reason, _Finish):
        return reason
    if reason.type == "abort" and reason.message:
        raise error_in_answer(reason.message)
    return reason.type


def make_sglang_generate(options: FormatOptions) -> JsonFormat:
    """The format for SGLang's ``/generate``. Raises ConfigError for other backends and unfit options."""
    if options.backend != "sglang":
        raise ConfigError(
            f"model.request_format: sglang_generate is SGLang's own, and servers.backend is "
            f"{options.backend}; write completions or chat"
        )
    extra = dict(options.extra_body)
    sampling = {
        _SGLANG_NAMES.get(key, key): value for key, value in options.sampling.items() if value is not None
    }
    sampling |= extra.pop("sampling_params", {})
    check_reserved(sampling=sampling, extra_body=extra)
    fields: dict[str, Any] = {"sampling_params": sampling}
    if options.stream:
        fields["stream"] = True
    body = frame({}, "input_ids" if options.prompt == "token_ids" else "text", fields | extra)
    prompt = options.prompt

    def encode(sample: Sample) -> bytes:
        return body.around(prompt_json(sample, prompt))

    return JsonFormat(
        "sglang_generate",
        "/generate",
        options,
        body=encode,
        reader=SglangGenerateReader(with_output=options.payload != "none"),
    )
