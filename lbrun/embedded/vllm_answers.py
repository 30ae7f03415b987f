"""How vLLM writes its answers: whole ones and streams, of completions and chat."""

from __future__ import annotations

import os
import time
from typing import Any

from lbrun.embedded.answers import Answer, AnswerModel, luck
from lbrun.embedded.backend import DONE, Asked, encode, sse
from lbrun.embedded.engine import Engine, Ticket
from lbrun.embedded.requests import OpenAIRequest, Prompt

FINGERPRINT = "vllm-0.32.0-embedded"


class _VllmGeneration:
    """What both endpoints have in common."""

    head_at_once = True
    prefix = ""
    chunk_object = ""

    def __init__(
        self,
        request: OpenAIRequest,
        prompt: Prompt,
        answer: Answer,
        key: bytes,
        model: AnswerModel,
        asked: Asked,
        served: str,
    ) -> None:
        self.stream = bool(request.stream)
        self.n_prompt = prompt.n_tokens
        self.answer = answer
        self.luck = luck(key)
        self._request = request
        self._prompt_ids = prompt.token_ids(model) if request.return_token_ids else None
        self._id = f"{self.prefix}-{asked.request_id or os.urandom(8).hex()}"
        self._created = int(time.time())
        self._model = served

    def _usage(self, n_out: int) -> dict[str, Any]:
        return {
            "prompt_tokens": self.n_prompt,
            "total_tokens": self.n_prompt + n_out,
            "completion_tokens": n_out,
        }

    def _whole_usage(self) -> dict[str, Any]:
        details = {"prompt_tokens_details": None, "completion_tokens_details": None}
        return {**self._usage(len(self.answer)), **details}

    def _chunk(self, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": self.chunk_object,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }

    def _ids(self, first: int, end: int) -> list[int] | None:
        return list(self.answer.ids[first:end]) if self._request.return_token_ids else None

    def closing(self) -> list[bytes]:
        """Usage, where it was asked for, and the end mark."""
        if not self._request.include_usage:
            return [DONE]
        usage = {"usage": self._usage(len(self.answer)), "system_fingerprint": FINGERPRINT}
        return [sse({**self._chunk([]), **usage}), DONE]


class CompletionGeneration(_VllmGeneration):
    """An answer of /v1/completions."""

    prefix = "cmpl"
    chunk_object = "text_completion"

    def whole(self, ticket: Ticket, engine: Engine) -> bytes:
        """The body of a whole answer."""
        choice = {
            "index": 0,
            "text": self.answer.text,
            "logprobs": None,
            "finish_reason": self.answer.finish_reason,
            "stop_reason": None,
            "token_ids": self._ids(0, len(self.answer)),
            "prompt_logprobs": None,
            "prompt_token_ids": self._prompt_ids,
            "routed_experts": None,
        }
        rest = {
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": self._whole_usage(),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
        return encode({**self._chunk([choice]), **rest})

    def opening(self) -> bytes:
        """Completions begin with their first token."""
        return b""

    def tokens(self, first: int, end: int, ticket: Ticket, engine: Engine) -> bytes:
        """The event of some tokens; the last one carries the finish reason."""
        last = end == len(self.answer)
        choice = {
            "index": 0,
            "text": "".join(self.answer.pieces[first:end]),
            "logprobs": None,
            "finish_reason": self.answer.finish_reason if last else None,
            "stop_reason": None,
            "prompt_token_ids": self._prompt_ids if first == 0 else None,
            "token_ids": self._ids(first, end),
        }
        chunk = self._chunk([choice])
        if self._request.continuous_usage:
            chunk["usage"] = self._usage(end)
        if last and not self._request.include_usage:
            chunk["system_fingerprint"] = FINGERPRINT
        return sse(chunk)


class ChatGeneration(_VllmGeneration):
    """An answer of /v1/chat/completions."""

    prefix = "chatcmpl"
    chunk_object = "chat.completion.chunk"

    def whole(self, ticket: Ticket, engine: Engine) -> bytes:
        """The body of a whole answer."""
        message = {
            "role": "assistant",
            "content": self.answer.text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        }
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": self.answer.finish_reason,
            "stop_reason": None,
            "token_ids": self._ids(0, len(self.answer)),
            "routed_experts": None,
        }
        rest = {
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": self._whole_usage(),
            "prompt_logprobs": None,
            "prompt_token_ids": self._prompt_ids,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
        return encode({**self._chunk([choice]), "object": "chat.completion", **rest})

    def opening(self) -> bytes:
        """The event with the role: no token yet."""
        delta = {"role": "assistant", "content": ""}
        chunk = self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])
        if self._request.continuous_usage:
            chunk["usage"] = {**self._usage(0), "completion_tokens_details": None}
        return sse({**chunk, "prompt_token_ids": self._prompt_ids, "prompt_text": None})

    def tokens(self, first: int, end: int, ticket: Ticket, engine: Engine) -> bytes:
        """The event of some tokens; the last one carries the finish reason."""
        last = end == len(self.answer)
        choice: dict[str, Any] = {
            "index": 0,
            "delta": {"content": "".join(self.answer.pieces[first:end])},
            "logprobs": None,
            "finish_reason": self.answer.finish_reason if last else None,
        }
        if last:
            choice["stop_reason"] = None
        choice["token_ids"] = self._ids(first, end)
        chunk = self._chunk([choice])
        if self._request.continuous_usage:
            chunk["usage"] = {**self._usage(end), "completion_tokens_details": None}
        if last and not self._request.include_usage:
            chunk["system_fingerprint"] = FINGERPRINT
        return sse(chunk)
