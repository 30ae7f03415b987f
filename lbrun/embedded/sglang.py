"""SGLang's API, as version 0.5.23 speaks it: its dialect of OpenAI's endpoints, and the control routes.

Its own /generate is in `lbrun.embedded.sglang_generate`. It serves whatever model name it is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lbrun.embedded.answers import Answer, AnswerModel, count_tokens, split_text
from lbrun.embedded.backend import Asked, Generation, encode, sse
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
from lbrun.embedded.sglang_answers import ChatGeneration, CompletionGeneration
from lbrun.embedded.sglang_generate import GenerateEndpoint, checked_limits
from lbrun.embedded.sglang_metrics import sglang_metrics

VERSION = "0.5.23"


class _TextRequest(msgspec.Struct):
    prompt: str = ""


class _TokensRequest(msgspec.Struct):
    tokens: list[int]


class SglangBackend:
    """One SGLang server."""

    health_paths = frozenset({"/health", "/health_generate", "/ping", "/ready"})
    dies_politely = False  # a terminated SGLang says nothing to whom it owes an answer

    def __init__(self, settings: ServerSettings, engine: Engine) -> None:
        self.model = settings.model
        self._settings, self._engine = settings, engine
        self._answers = AnswerModel(settings.output_tokens_mean, settings.vocab_size, settings.eos_id)
        self._read_completion = msgspec.json.Decoder(CompletionRequest).decode
        self._read_chat = msgspec.json.Decoder(ChatRequest).decode
        self.generations: Mapping[str, Callable[[Asked], Generation]] = {
            "/generate": GenerateEndpoint(settings, self._answers, self._unreadable).read,
            "/v1/completions": self._completion,
            "/v1/chat/completions": self._chat,
        }
        info, server = {"GET": self._model_info}, {"GET": self._server_info}
        self.control: Mapping[str, Mapping[str, Callable[[bytes], Reply]]] = {
            **{path: {"GET": lambda _: Reply(content_type=None)} for path in self.health_paths},
            "/v1/models": {"GET": self._models},
            "/model_info": info,
            "/get_model_info": info,
            "/server_info": server,
            "/get_server_info": server,
            "/metrics": {"GET": self._metrics},
            "/tokenize": {"POST": self._tokenize},
            "/detokenize": {"POST": self._detokenize},
        }

    # control

    def _models(self, _: bytes) -> Reply:
        card = {
            "id": self.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "sglang",
            "root": self.model,
            "parent": None,
            "max_model_len": self._settings.max_model_len,
        }
        return Reply(body=encode({"object": "list", "data": [card]}))

    def _model_info(self, _: bytes) -> Reply:
        info = {
            "model_path": self.model,
            "served_model_name": self.model,
            "tokenizer_path": self.model,
            "is_generation": True,
            "preferred_sampling_params": None,
            "weight_version": "default",
            "has_image_understanding": self._settings.multimodal,
            "has_audio_understanding": False,
        }
        return Reply(body=encode(info))

    def _server_info(self, _: bytes) -> Reply:
        info = {
            "model_path": self.model,
            "tokenizer_path": self.model,
            "served_model_name": self.model,
            "context_length": self._settings.max_model_len,
            "max_running_requests": self._settings.slots,
            "max_queued_requests": None,
            "disable_radix_cache": True,
            "random_seed": self._settings.seed,
            "stream_interval": 1,
            "status": "ready",
            "max_total_num_tokens": self._settings.slots * self._settings.max_model_len,
            "max_req_input_len": self._settings.max_model_len - 1,
            "version": VERSION,
        }
        return Reply(body=encode(info))

    def _metrics(self, _: bytes) -> Reply:
        page = sglang_metrics(self._engine, self._settings)
        return Reply(body=page, content_type=b"text/plain; version=0.0.4; charset=utf-8")

    def _tokenize(self, body: bytes) -> Reply:
        text = self._read(body, msgspec.json.Decoder(_TextRequest).decode, "/tokenize").prompt
        answer = {
            "tokens": self._answers.ids_of(split_text(text)),
            "count": count_tokens(text),
            "max_model_len": self._settings.max_model_len,
        }
        return Reply(body=encode(answer))

    def _detokenize(self, body: bytes) -> Reply:
        tokens = self._read(body, msgspec.json.Decoder(_TokensRequest).decode, "/detokenize").tokens
        return Reply(body=encode({"text": self._answers.text_of(tokens)}))

    # generations

    def _completion(self, asked: Asked) -> Generation:
        path = "/v1/completions"
        request: CompletionRequest = self._read(asked.body, self._read_completion, path)
        if request.prompt is None:
            shown = msgspec.json.decode(asked.body)
            raise self._invalid(Problem("missing", ("body", "prompt"), "Field required", shown), path)
        if not request.prompt:
            raise self._bad("Prompt cannot be empty")
        if isinstance(request.prompt, list):
            highest = max(request.prompt)
            if min(request.prompt) < 0 or highest >= self._settings.vocab_size:
                raise OutOfVocabularyError(self.error(400, f"Token id {highest} is out of vocabulary"))
            prompt = prompt_of_ids(request.prompt)
        else:
            prompt = prompt_of_text(request.prompt)
        max_tokens = self._check(request, prompt, request.max_tokens, path)
        answer, key = self._drawn(request, prompt, max_tokens)
        return CompletionGeneration(request, prompt, answer, key, self._answers, request.model or "default")

    def _chat(self, asked: Asked) -> Generation:
        path = "/v1/chat/completions"
        request: ChatRequest = self._read(asked.body, self._read_chat, path)
        if not request.messages:
            raise self._bad("Messages cannot be empty.")
        if request.return_token_ids and request.stream:
            text = "return_token_ids is not supported with streaming on /v1/chat/completions. "
            text += "Please set stream=false when using return_token_ids=true."
            raise RefusalError(self.error(400, text, "BadRequest"))
        images = [p.image_url for m in request.messages for p in m.parts() if p.image_url is not None]
        if images and not self._settings.multimodal:
            text = "Model only supports text input; received unsupported content type 'image_url'."
            raise self._bad(text)
        try:
            prompt = prompt_of_messages(request.messages)
        except ImageError as error:
            text = str(error)
            raise self._bad(
                text if text.startswith("Non-base64") else f"Could not decode image: {text}"
            ) from None
        limit, longest = request.token_limit, self._settings.max_model_len
        if limit is not None and limit > longest:
            text = f"max_completion_tokens is too large: {limit}."
            raise self._bad(text + f"This model supports at most {longest} completion tokens.")
        max_tokens = self._check(request, prompt, limit, path)
        answer, key = self._drawn(request, prompt, max_tokens)
        return ChatGeneration(request, prompt, answer, key, self._answers, request.model or "default")

    def _drawn(self, request: OpenAIRequest, prompt: Prompt, max_tokens: int) -> tuple[Answer, bytes]:
        try:
            return drawn_answer(self._answers, request, prompt, max_tokens, self._settings.seed)
        except msgspec.DecodeError as error:
            raise self._bad(f"Invalid JSON schema: {error}") from None

    def _check(self, request: OpenAIRequest, prompt: Prompt, max_tokens: int | None, path: str) -> int:
        """How many tokens the answer may have. Raises RefusalError."""
        if max_tokens is not None and max_tokens < 1:
            text = "max_tokens must be positive"
            said: dict[str, object] = {"error": ValueError(text)}
            loc = ("body", "max_tokens")
            raise self._invalid(Problem("value_error", loc, f"Value error, {text}", max_tokens, said), path)
        if request.n not in (None, 1):
            raise self._bad(f"n must be 1 on this server, got {request.n}.")
        try:
            return checked_limits(
                self._settings.max_model_len,
                prompt.n_tokens,
                max_tokens,
                request.min_tokens or 0,
                request.temperature,
                request.top_p,
            )
        except ValueError as error:
            raise self._bad(str(error)) from None

    # reading and refusing

    def _read(self, body: bytes, read: Callable[[bytes], Any], path: str) -> Any:
        try:
            return read(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._unreadable(body, error, path) from None

    def _unreadable(self, body: bytes, error: Exception, path: str) -> RefusalError:
        wrong = error if isinstance(error, msgspec.MsgspecError) else msgspec.DecodeError(str(error))
        try:
            problem = explain(body, wrong)
        except NotTextError:
            said: dict[str, object] = {"error": "str is not valid UTF-8: surrogates not allowed"}
            problem = Problem("json_invalid", ("body", 0), "JSON decode error", {}, said)
        if problem.kind == "json_invalid" and problem.loc[-1] != 0:
            at_end = problem.loc[-1] == len(body)
            words = "unexpected end of data" if at_end else "unexpected character, expected a JSON value"
            problem = problem._replace(context={"error": words})
        return self._invalid(problem, path)

    def _invalid(self, problem: Problem, path: str) -> RefusalError:
        shown: dict[str, Any] = {
            "type": problem.kind,
            "loc": problem.loc,
            "msg": problem.message,
            "input": problem.value,
        }
        if problem.context:
            shown["ctx"] = problem.context
        text = f"1 validation error:\n  {shown}\n\n    POST {path} [{shown}]"
        return RefusalError(self.error(400, text, "Bad Request"))

    def _bad(self, message: str) -> RefusalError:
        return RefusalError(self.error(400, message))

    def error(self, status: int, message: str, kind: str = "BadRequestError") -> Reply:
        """An error as a whole answer."""
        body = {"object": "error", "message": message, "type": kind, "param": None, "code": status}
        return Reply(status, encode(body))

    def error_event(self, message: str) -> bytes:
        """An error in the middle of a stream."""
        error = {"message": message, "type": "internal_server_error", "code": 500, "retryable": True}
        return sse({"error": error})
