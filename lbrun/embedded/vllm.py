"""vLLM's OpenAI-compatible API, as version 0.32.0 speaks it: fields, their order, errors, metrics."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from lbrun.embedded.answers import Answer, AnswerModel, count_tokens, split_text
from lbrun.embedded.backend import Asked, Generation, encode
from lbrun.embedded.engine import Engine
from lbrun.embedded.exchange import RefusalError, Reply
from lbrun.embedded.images import ImageError
from lbrun.embedded.problems import NotTextError, Problem, explain
from lbrun.embedded.requests import (
    ChatRequest,
    CompletionRequest,
    OpenAIRequest,
    OutOfVocabularyError,
    Prompt,
    drawn_answer,
    prompt_of_ids,
    prompt_of_messages,
    prompt_of_text,
)
from lbrun.embedded.settings import ServerSettings
from lbrun.embedded.vllm_answers import ChatGeneration, CompletionGeneration
from lbrun.embedded.vllm_metrics import vllm_metrics

VERSION = "0.32.0"

_R = TypeVar("_R", bound=OpenAIRequest)
_PART_TYPES = ("text", "input_text", "image_url")


class _TokenizeRequest(msgspec.Struct):
    prompt: str = ""


class _DetokenizeRequest(msgspec.Struct):
    tokens: list[int]


class VllmBackend:
    """One vLLM server."""

    health_paths = frozenset({"/health", "/ping"})
    dies_politely = True

    def __init__(self, settings: ServerSettings, engine: Engine) -> None:
        self.model = settings.model
        self._settings, self._engine = settings, engine
        self._answers = AnswerModel(settings.output_tokens_mean, settings.vocab_size, settings.eos_id)
        self._read_completion = msgspec.json.Decoder(CompletionRequest).decode
        self._read_chat = msgspec.json.Decoder(ChatRequest).decode
        self.generations: Mapping[str, Callable[[Asked], Generation]] = {
            "/v1/completions": self._completion,
            "/v1/chat/completions": self._chat,
        }
        empty = Reply(content_type=None)
        self.control: Mapping[str, Mapping[str, Callable[[bytes], Reply]]] = {
            "/health": {"GET": lambda _: empty},
            "/ping": {"GET": lambda _: empty, "POST": lambda _: empty},
            "/version": {"GET": lambda _: Reply(body=encode({"version": VERSION}))},
            "/load": {"GET": lambda _: Reply(body=encode({"server_load": engine.n_running}))},
            "/v1/models": {"GET": self._models},
            "/metrics": {"GET": self._metrics},
            "/tokenize": {"POST": self._tokenize},
            "/detokenize": {"POST": self._detokenize},
        }

    # control

    def _models(self, _: bytes) -> Reply:
        created = int(time.time())
        permission = {
            "id": f"modelperm-{os.urandom(8).hex()}",
            "object": "model_permission",
            "created": created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        card = {
            "id": self.model,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": self.model,
            "parent": None,
            "max_model_len": self._settings.max_model_len,
            "permission": [permission],
        }
        return Reply(body=encode({"object": "list", "data": [card]}))

    def _metrics(self, _: bytes) -> Reply:
        page = vllm_metrics(self._engine, self._settings)
        return Reply(body=page, content_type=b"text/plain; version=1.0.0; charset=utf-8")

    def _tokenize(self, body: bytes) -> Reply:
        text = self._read(body, msgspec.json.Decoder(_TokenizeRequest).decode).prompt
        answer = {
            "count": count_tokens(text),
            "max_model_len": self._settings.max_model_len,
            "tokens": self._answers.ids_of(split_text(text)),
            "token_strs": None,
        }
        return Reply(body=encode(answer))

    def _detokenize(self, body: bytes) -> Reply:
        tokens = self._read(body, msgspec.json.Decoder(_DetokenizeRequest).decode).tokens
        return Reply(body=encode({"prompt": self._answers.text_of(tokens)}))

    # generations

    def _completion(self, asked: Asked) -> Generation:
        request = self._read_typed(asked, self._read_completion)
        if not request.prompt and not isinstance(request.prompt, list):
            text = "Either prompt or prompt_embeds must be provided and non-empty."
            raise self._bad(text, "prompt", with_value=False)
        self._check_model(request)
        if not request.prompt:
            raise self._bad("You must pass at least one prompt")
        if isinstance(request.prompt, list):
            self._check_ids(request.prompt)
            prompt = prompt_of_ids(request.prompt)
        else:
            prompt = prompt_of_text(request.prompt)
        max_tokens = self._check(request, prompt, request.max_tokens, "max_tokens")
        answer, key = self._drawn(request, prompt, max_tokens)
        return CompletionGeneration(request, prompt, answer, key, self._answers, asked, self.model)

    def _chat(self, asked: Asked) -> Generation:
        request = self._read_typed(asked, self._read_chat)
        self._check_model(request)
        if not request.messages:
            raise self._bad(
                "Cannot apply chat template to an empty conversation. Provide at least one message."
            )
        for part in (p for m in request.messages for p in m.parts()):
            if part.type not in _PART_TYPES:
                supported = ", ".join(sorted(_PART_TYPES))
                text = f"Unsupported chat content part type: {part.type!r}. Supported types: {supported}."
                raise self._bad(text, "type", part.type)
            self._check_image(part.image_url.url if part.image_url else None)
        try:
            prompt = prompt_of_messages(request.messages)
        except ImageError as error:
            text = str(error)
            raise self._bad(
                text if text.startswith("Non-base64") else f"Failed to load image: {text}"
            ) from None
        max_tokens = self._check(request, prompt, request.token_limit, "max_tokens")
        answer, key = self._drawn(request, prompt, max_tokens)
        return ChatGeneration(request, prompt, answer, key, self._answers, asked, self.model)

    def _drawn(self, request: OpenAIRequest, prompt: Prompt, max_tokens: int) -> tuple[Answer, bytes]:
        try:
            return drawn_answer(self._answers, request, prompt, max_tokens, self._settings.seed)
        except msgspec.DecodeError as error:
            raise self._bad(f"Invalid JSON schema: {error}") from None

    # checks

    def _check_model(self, request: OpenAIRequest) -> None:
        if request.model is not None and request.model != self.model:
            text = f"The model `{request.model}` does not exist. Valid aliases: {self.model}."
            raise RefusalError(self.error(404, text, "NotFoundError", "model"))

    def _check_ids(self, ids: Sequence[int]) -> None:
        if min(ids) < 0:
            at = next(i for i, token in enumerate(ids) if token < 0)
            text = "Input should be greater than or equal to 0"
            loc = ("body", "prompt", at)
            raise self._invalid(Problem("greater_than_equal", loc, text, ids[at], {"ge": 0}))
        highest = max(ids)
        if highest >= self._settings.vocab_size:
            raise OutOfVocabularyError(self.error(400, f"Token id {highest} is out of vocabulary"))

    def _check_image(self, url: str | None) -> None:
        if url is None:
            return
        if not self._settings.multimodal:
            raise self._bad(f"{self.model} is not a multimodal model")
        if not url:
            text = "multi_modal_data['image'][0] is empty but multi_modal_uuids['image'][0] is missing."
            raise self._bad(text)
        if not url.startswith("data:"):
            # a simulated server on loopback has no business fetching anything
            text = "This server does not fetch images; send a data URI"
            raise RefusalError(self.error(500, text, "InternalServerError"))

    def _check(self, request: OpenAIRequest, prompt: Prompt, max_tokens: int | None, name: str) -> int:
        """How many tokens the answer may have. Raises RefusalError."""
        longest = self._settings.max_model_len
        if request.stream_options is not None and not request.stream:
            text = "Stream options can only be defined when `stream=True`."
            raise self._bad(text, "stream_options", with_value=False)
        if request.n not in (None, 1):
            raise self._bad(f"n must be 1 on this server, got {request.n}.", "n", request.n)
        if request.temperature is not None and request.temperature < 0:
            text = f"temperature must be non-negative, got {request.temperature}."
            raise self._bad(text, "temperature", request.temperature)
        if request.top_p is not None and not 0 < request.top_p <= 1:
            raise self._bad(f"top_p must be in (0, 1], got {request.top_p}.", "top_p", request.top_p)
        if max_tokens is not None and max_tokens > longest:
            text = f"{name}={max_tokens} cannot be greater than max_model_len={longest}. "
            raise self._bad(text + "Please request fewer output tokens.", name, max_tokens)
        if max_tokens is not None and max_tokens < 1:
            raise self._bad(f"{name} must be at least 1, got {max_tokens}.", name, max_tokens)
        if prompt.n_tokens >= longest:
            text = (
                f"This model's maximum context length is {longest} tokens. However, your prompt contains "
                f"{prompt.n_tokens} input tokens, which exceeds this limit even without any output tokens. "
                "Please reduce the length of the input prompt."
            )
            raise self._bad(text, "input_tokens", prompt.n_tokens)
        least = request.min_tokens or 0
        if least < 0:
            raise self._bad(f"min_tokens must be greater than or equal to 0, got {least}.")
        if max_tokens is not None and least > max_tokens:
            raise self._bad(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {least}.")
        # prompt and answer together over the limit: served, and cut short
        room = longest - prompt.n_tokens
        return room if max_tokens is None else min(max_tokens, room)

    # reading and refusing

    def _read_typed(self, asked: Asked, read: Callable[[bytes], _R]) -> _R:
        if asked.content_type is not None and not asked.content_type.startswith(b"application/json"):
            text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
            raise RefusalError(self.error(400, text, "Bad Request"))
        request: _R = self._read(asked.body, read)
        return request

    def _read(self, body: bytes, read: Callable[[bytes], Any]) -> Any:
        try:
            return read(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            wrong = error if isinstance(error, msgspec.MsgspecError) else msgspec.DecodeError(str(error))
            try:
                problem = explain(body, wrong)
            except NotTextError:
                raise RefusalError(
                    Reply(400, encode({"detail": "There was an error parsing the body"}))
                ) from None
            raise self._invalid(problem) from None

    def _invalid(self, problem: Problem) -> RefusalError:
        loc = ".".join(map(str, problem.loc))
        shown: dict[str, Any] = {
            "type": problem.kind,
            "loc": loc,
            "msg": problem.message,
            "input": _shown(problem.value),
        }
        if problem.context:
            shown["ctx"] = problem.context
        return RefusalError(self.error(400, f"1 validation error:\n  {shown}", "Bad Request", loc))

    def _bad(
        self, message: str, param: str | None = None, value: object = None, *, with_value: bool = True
    ) -> RefusalError:
        if param is not None:
            message += f" (parameter={param}, value={value})" if with_value else f" (parameter={param})"
        return RefusalError(self.error(400, message, "BadRequestError", param))

    def error(
        self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None
    ) -> Reply:
        """An error as a whole answer."""
        body = {"message": message, "type": kind, "param": param, "code": status}
        return Reply(status, encode({"error": body}))

    def error_event(self, message: str) -> bytes:
        """What a stream says when the engine has died under it."""
        # not through the encoder: vLLM writes this one event with spaces
        text = encode(message).decode()
        shown = f'{{"message": {text}, "type": "InternalServerError", "param": null, "code": 500}}'
        return f'data: {{"error": {shown}}}\n\n'.encode()


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return f"<dict of {len(value)} items>"
    if isinstance(value, list):
        return f"<list of {len(value)} items>"
    return str(value)
