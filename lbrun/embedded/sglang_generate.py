"""SGLang's own endpoint, /generate: token ids or text in, text and token ids out.

Streams are cumulative: each event repeats the whole answer so far, and the last event alone is the answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec

from lbrun.embedded.answers import Answer, AnswerModel, luck, prompt_key
from lbrun.embedded.backend import DONE, Asked, Generation, encode, sse
from lbrun.embedded.engine import Engine, Ticket
from lbrun.embedded.exchange import RefusalError, Reply
from lbrun.embedded.requests import OutOfVocabularyError, Prompt, prompt_of_ids, prompt_of_text
from lbrun.embedded.schema import fitting_json
from lbrun.embedded.settings import ServerSettings

_DEFAULT_MAX_TOKENS = 128


class SamplingParams(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`sampling_params`: all fields that SGLang knows; those without an effect here are only accepted."""

    max_new_tokens: int | None = _DEFAULT_MAX_TOKENS
    stop: Any = None
    stop_token_ids: Any = None
    stop_regex: Any = None
    temperature: int | float | None = None  # an int is shown as one when it is refused
    top_p: int | float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    min_new_tokens: int = 0
    n: int = 1
    json_schema: str | None = None
    regex: Any = None
    ebnf: Any = None
    structural_tag: Any = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    no_stop_trim: bool = False
    stream_interval: int | None = None
    logit_bias: Any = None
    sampling_seed: int | None = None
    custom_params: Any = None
    beam_width: Any = None
    watermark: Any = None
    choice: Any = None


class GenerateRequest(msgspec.Struct, kw_only=True):
    """A request to /generate; unknown fields are ignored. Where ids and text are given, ids win."""

    input_ids: list[int] | None = None
    text: str | None = None
    sampling_params: SamplingParams | None = None
    stream: bool | None = None
    rid: str | None = None


def checked_limits(
    longest: int,
    n_prompt: int,
    max_tokens: int | None,
    min_tokens: int,
    temperature: float | None,
    top_p: float | None,
) -> int:
    """How many tokens the answer may have. Raises ValueError with SGLang's words for what it refuses."""
    if temperature is not None and temperature < 0:
        raise ValueError(f"temperature must be a non-negative finite number, got {temperature}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}.")
    if max_tokens is not None and not 0 <= min_tokens <= max_tokens:
        raise ValueError(f"min_new_tokens must be in [0, max_new_tokens({max_tokens})], got {min_tokens}.")
    if n_prompt >= longest:
        raise ValueError(
            f"The input ({n_prompt} tokens) is longer than the model's context length ({longest} tokens)."
        )
    if max_tokens is None:
        return longest - n_prompt
    if n_prompt + max_tokens > longest:
        raise ValueError(
            f"Requested token count exceeds the model's maximum context length of {longest} tokens. "
            f"You requested a total of {n_prompt + max_tokens} tokens: {n_prompt} tokens from the input "
            f"messages and {max_tokens} tokens for the completion. Please reduce the number of tokens in "
            "the input messages or the completion to fit within the limit."
        )
    return max_tokens


class GenerateEndpoint:
    """Reads requests to /generate.

    unreadable: makes the refusal of a body that is not what it should be, given body, error and path.
    """

    def __init__(
        self,
        settings: ServerSettings,
        answers: AnswerModel,
        unreadable: Callable[[bytes, Exception, str], RefusalError],
    ) -> None:
        self._settings, self._answers, self._unreadable = settings, answers, unreadable
        self._decode = msgspec.json.Decoder(GenerateRequest).decode

    def read(self, asked: Asked) -> Generation:
        """The generation that is asked for. Raises RefusalError."""
        try:
            request = self._decode(asked.body)
        except msgspec.ValidationError as error:
            raise self._unknown_parameter(error) or self._unreadable(asked.body, error, "/generate") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._unreadable(asked.body, error, "/generate") from None
        sampling = request.sampling_params or SamplingParams()
        prompt = self._prompt(request)
        if sampling.max_new_tokens is not None and sampling.max_new_tokens < 0:
            raise _refusal(f"max_new_tokens must be at least 0, got {sampling.max_new_tokens}.")
        if sampling.n != 1:
            raise _refusal(f"n must be 1 on this server, got {sampling.n}.")
        try:
            max_tokens = checked_limits(
                self._settings.max_model_len,
                prompt.n_tokens,
                sampling.max_new_tokens,
                sampling.min_new_tokens,
                sampling.temperature,
                sampling.top_p,
            )
        except ValueError as error:
            raise _refusal(str(error), streamed=bool(request.stream)) from None
        key = prompt_key(prompt.content, self._settings.seed, sampling.sampling_seed)
        return GenerateGeneration(request, prompt, self._answer(sampling, key, max(1, max_tokens)), key)

    def _prompt(self, request: GenerateRequest) -> Prompt:
        if request.input_ids is not None:
            if not request.input_ids:
                raise _refusal("input_ids cannot be empty.")
            if min(request.input_ids) < 0 or max(request.input_ids) >= self._settings.vocab_size:
                # a real server dies of it (see the fault `poison`); this one, by default, says what is wrong
                text = f"Token id {max(request.input_ids)} is out of vocabulary"
                raise OutOfVocabularyError(_refusal(text).reply)
            return prompt_of_ids(request.input_ids)
        if request.text is None:
            raise _refusal("Either text, input_ids or input_embeds should be provided.")
        if not request.text:
            raise _refusal("text cannot be empty.")
        return prompt_of_text(request.text)

    def _answer(self, sampling: SamplingParams, key: bytes, max_tokens: int) -> Answer:
        if sampling.json_schema is not None:
            try:
                schema = msgspec.json.decode(sampling.json_schema)
            except msgspec.DecodeError as error:
                raise _refusal(f"Invalid JSON schema: {error}") from None
            return self._answers.answer_text(fitting_json(schema, key), max_tokens)
        return self._answers.answer(key, max_tokens, sampling.min_new_tokens, sampling.ignore_eos)

    def _unknown_parameter(self, error: msgspec.ValidationError) -> RefusalError | None:
        said = str(error)
        if "unknown field" not in said:
            return None
        name = said.split("`")[1]
        known = ", ".join(f"`{field}`" for field in SamplingParams.__struct_fields__)
        return RefusalError(Reply(400, encode({"error": f"unknown field `{name}`, expected one of {known}"})))


class GenerateGeneration:
    """An answer of /generate."""

    head_at_once = True

    def __init__(self, request: GenerateRequest, prompt: Prompt, answer: Answer, key: bytes) -> None:
        self.stream = bool(request.stream)
        self.n_prompt = prompt.n_tokens
        self.answer = answer
        self.luck = luck(key)
        self._id = request.rid or os.urandom(16).hex()

    def whole(self, ticket: Ticket, engine: Engine) -> bytes:
        """The body of a whole answer."""
        return encode(self._so_far(len(self.answer), ticket, engine))

    def opening(self) -> bytes:
        """The first event is that of the first token."""
        return b""

    def tokens(self, first: int, end: int, ticket: Ticket, engine: Engine) -> bytes:
        """The event for the answer so far."""
        return sse(self._so_far(end, ticket, engine))

    def closing(self) -> list[bytes]:
        """The end mark."""
        return [DONE]

    def _so_far(self, end: int, ticket: Ticket, engine: Engine) -> dict[str, Any]:
        answer, wall_s = self.answer, engine.wall_offset_s
        finished = end == len(answer)
        meta: dict[str, Any] = {
            "id": self._id,
            "finish_reason": self._finish_reason() if finished else None,
            "prompt_tokens": self.n_prompt,
            "weight_version": "default",
            "num_retractions": 0,
            "storage_prefetch_wait": 0.0,
            "storage_staging_wait": 0.0,
            "forward_entry_time": wall_s + ticket.started_s,
            "prefill_finished_time": wall_s + ticket.first_s,
            "queue_time": ticket.started_s - ticket.arrived_s,
            "reasoning_tokens": 0,
            "completion_tokens": end,
            "cached_tokens": 0,
        }
        if finished:
            meta["weight_versions"] = [{"version": "default", "start": 0, "end": end}]
        meta |= {"cached_tokens_details": None, "dp_rank": None}
        sent = {"response_sent_to_client_ts": wall_s + (ticket.first_s if self.stream else ticket.end_s)}
        if finished:
            decoding_s = ticket.end_s - ticket.first_s
            meta |= {
                "e2e_latency": ticket.end_s - ticket.arrived_s,
                "request_received_ts": wall_s + ticket.arrived_s,
                "first_token_latency": ticket.first_s - ticket.arrived_s,
                "api_server_dispatch_finish_ts": wall_s + ticket.arrived_s,
            }
            if self.stream:
                meta |= sent
            meta |= {
                "request_finished_ts": wall_s + ticket.end_s,
                "decode_throughput": (end - 1) / decoding_s if decoding_s > 0 else 0.0,
            }
        if end == 1 or (finished and not self.stream):
            meta |= sent  # of a stream, only the first event and the last one have it
        return {"text": "".join(answer.pieces[:end]), "output_ids": answer.ids[:end], "meta_info": meta}

    def _finish_reason(self) -> dict[str, Any]:
        if self.answer.finish_reason == "stop":
            return {"type": "stop", "matched": self.answer.eos_id}
        return {"type": "length", "length": len(self.answer)}


def _refusal(message: str, *, streamed: bool = False) -> RefusalError:
    """What /generate says to a request that it does not serve.

    A stream is already open when the engine sees the request: status 200, and the error is its only event.
    """
    if not streamed:
        return RefusalError(Reply(400, encode({"error": {"message": message}})))
    error = {"message": message, "type": "invalid_request_error", "code": 400, "retryable": False}
    return RefusalError(Reply(200, sse({"error": error}) + DONE, b"text/event-stream; charset=utf-8"))
