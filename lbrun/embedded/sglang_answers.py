"""How SGLang writes the answers of its OpenAI-style endpoints."""

from __future__ import annotations

import os
import time
from typing import Any

from lbrun.embedded.answers import Answer, AnswerModel, luck
from lbrun.embedded.backend import DONE, encode, sse
from lbrun.embedded.engine import Engine, Ticket
from lbrun.embedded.requests import OpenAIRequest, Prompt


class _SglangGeneration:
    """What both endpoints have in common."""

    head_at_once = False  # these endpoints wait for the first token before they answer at all
    chunk_object = ""

    def __init__(
        self,
        request: OpenAIRequest,
        prompt: Prompt,
        answer: Answer,
        key: bytes,
        model: AnswerModel,
        named: str,
    ) -> None:
        self.stream = bool(request.stream)
        self.n_prompt = prompt.n_tokens
        self.answer = answer
        self.luck = luck(key)
        self._request = request
        self._prompt_ids = prompt.token_ids(model) if request.return_token_ids else None
        self._n_image_tokens = prompt.n_image_tokens
        self._id = os.urandom(16).hex()
        self._created = int(time.time())
        self._model = named
        self._matched = answer.eos_id if answer.finish_reason == "stop" else None

    def _usage(self, n_out: int) -> dict[str, Any]:
        cached = {"cached_tokens": 0, "image_tokens": self._n_image_tokens}
        return {
            "prompt_tokens": self.n_prompt,
            "total_tokens": self.n_prompt + n_out,
            "completion_tokens": n_out,
            "prompt_tokens_details": cached if self._n_image_tokens else None,
            "reasoning_tokens": 0,
            "completion_tokens_details": None,
        }

    def _chunk(self, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": self.chunk_object,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }

    def _whole(self, choice: dict[str, Any], kind: str) -> bytes:
        n = len(self.answer)
        versions = [{"version": "default", "start": 0, "end": n}]
        rest = {
            "usage": self._usage(n),
            "metadata": {"weight_version": "default", "weight_versions": versions},
        }
        return encode({**self._chunk([choice]), "object": kind, **rest})


class CompletionGeneration(_SglangGeneration):
    """An answer of /v1/completions."""

    chunk_object = "text_completion"

    def whole(self, ticket: Ticket, engine: Engine) -> bytes:
        """The body of a whole answer."""
        choice: dict[str, Any] = {
            "index": 0,
            "text": self.answer.text,
            "logprobs": None,
            "finish_reason": self.answer.finish_reason,
            "matched_stop": self._matched,
        }
        if self._prompt_ids is not None:
            choice |= {"token_ids": self.answer.ids, "prompt_token_ids": self._prompt_ids}
        return self._whole(choice, self.chunk_object)

    def opening(self) -> bytes:
        """Completions begin with their first token."""
        return b""

    def tokens(self, first: int, end: int, ticket: Ticket, engine: Engine) -> bytes:
        """The event of some tokens; the last one carries the finish reason."""
        last = end == len(self.answer)
        choice: dict[str, Any] = {
            "index": 0,
            "text": "".join(self.answer.pieces[first:end]),
            "logprobs": None,
            "finish_reason": self.answer.finish_reason if last else None,
            "matched_stop": self._matched if last else None,
        }
        if self._prompt_ids is not None:
            choice["token_ids"] = self.answer.ids[first:end]
            if first == 0:
                choice["prompt_token_ids"] = self._prompt_ids
        usage = self._usage(end) if self._request.continuous_usage else None
        return sse({**self._chunk([choice]), "usage": usage})

    def closing(self) -> list[bytes]:
        """Usage, where it was asked for, and the end mark."""
        if not self._request.include_usage:
            return [DONE]
        usage = {k: v for k, v in self._usage(len(self.answer)).items() if v is not None}
        return [sse({**self._chunk([]), "usage": usage}), DONE]


class ChatGeneration(_SglangGeneration):
    """An answer of /v1/chat/completions."""

    chunk_object = "chat.completion.chunk"

    def whole(self, ticket: Ticket, engine: Engine) -> bytes:
        """The body of a whole answer."""
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": self.answer.text, "reasoning_content": None},
            "logprobs": None,
            "finish_reason": self.answer.finish_reason,
            "matched_stop": self._matched,
        }
        if self._prompt_ids is not None:
            choice |= {"prompt_token_ids": self._prompt_ids, "response_token_ids": self.answer.ids}
        return self._whole(choice, "chat.completion")

    def opening(self) -> bytes:
        """The event with the role: no token yet."""
        return self._event({"reasoning_content": None, "role": "assistant", "content": ""})

    def tokens(self, first: int, end: int, ticket: Ticket, engine: Engine) -> bytes:
        """The event of some tokens; tokens without text make none."""
        text = "".join(self.answer.pieces[first:end])
        if not text:
            return b""
        usage = self._usage(end) if self._request.continuous_usage else None
        return self._event({"reasoning_content": None, "content": text}, usage=usage)

    def closing(self) -> list[bytes]:
        """The finish reason has an event of its own; usage, where it was asked for, and the end mark."""
        finish = self._event({"reasoning_content": None}, self.answer.finish_reason, self._matched)
        if not self._request.include_usage:
            return [finish, DONE]
        return [finish, sse({**self._chunk([]), "usage": self._usage(len(self.answer))}), DONE]

    def _event(
        self,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        matched: int | None = None,
        usage: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason,
            "matched_stop": matched,
        }
        chunk = self._chunk([choice])
        if usage is not None:
            chunk["usage"] = usage
        return sse(chunk)
