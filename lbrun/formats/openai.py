"""What answers of ``/v1/completions`` and ``/v1/chat/completions`` have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import msgspec

from lbrun.attempt import BadAnswer, FailureKind
from lbrun.formats.reading import Reading, decode_json, error_in_answer, raise_if_error_body

C = TypeVar("C")


class Usage(msgspec.Struct, gc=False):
    """The server's token counts."""

    completion_tokens: int | None = None
    prompt_tokens: int | None = None


class Completion(msgspec.Struct, Generic[C], gc=False):
    """A whole answer, or an event of a stream; fields that nobody asks for are skipped undecoded."""

    choices: list[C] | None = None
    usage: Usage | None = None
    error: Any = None


class OpenAiReader(ABC, Generic[C]):
    """Reads answers and events; what a choice looks like is left to each API.

    An event carries a token if it shows one (token ids, or text of any kind); or if its own usage counts
    one; or, where it has neither token ids nor usage, if it is one that the server sends for a token
    without visible text, which is a part of a UTF-8 character (`is_silent_token`).
    """

    cumulative = False

    def __init__(self, choice: type[C]) -> None:
        self._completion: msgspec.json.Decoder[Completion[C]]
        self._events: msgspec.json.Decoder[list[Completion[C]]]
        self._completion = msgspec.json.Decoder(Completion[choice])  # type: ignore[valid-type]
        self._events = msgspec.json.Decoder(list[Completion[choice]])  # type: ignore[valid-type]

    @abstractmethod
    def text(self, choice: C) -> str:
        """The text of a choice."""

    @abstractmethod
    def ids(self, choice: C) -> list[int] | None:
        """The token ids of a choice, None where the server did not send them."""

    @abstractmethod
    def finish_reason(self, choice: C) -> str | None:
        """Why the answer ended, None while it goes on."""

    @abstractmethod
    def shows_token(self, choice: C) -> bool:
        """Whether something of a token is to be seen in an event."""

    @abstractmethod
    def is_silent_token(self, choice: C) -> bool:
        """Whether an event that shows no token is nevertheless the event of one."""

    def check_whole(self, choice: C) -> None:
        """Raise BadAnswer for a choice that cannot be a whole answer's."""

    def whole(self, body: bytes) -> Reading:
        """Read a whole answer."""
        completion = self._decode(body)
        if not completion.choices:
            raise BadAnswer(FailureKind.MALFORMED, "the answer has no choices")
        if len(completion.choices) > 1:
            raise BadAnswer(FailureKind.MALFORMED, f"{len(completion.choices)} choices for one prompt")
        choice = completion.choices[0]
        self.check_whole(choice)
        return self._reading(True, choice, completion.usage)

    def event(self, data: bytes) -> Reading:
        """Read one event; the one with the final usage has no choices."""
        completion = self._decode(data)
        usage = completion.usage
        n_tokens = usage.completion_tokens if usage else None
        if not completion.choices:
            n_input_tokens = (usage.prompt_tokens or 0) if usage else 0
            return Reading(bool(n_tokens), n_tokens=n_tokens, n_input_tokens=n_input_tokens)
        choice = completion.choices[0]
        ids = self.ids(choice)
        if ids or self.shows_token(choice):
            has_token = True
        elif n_tokens is not None:
            has_token = n_tokens > 0
        else:
            has_token = ids is None and self.is_silent_token(choice)
        return self._reading(has_token, choice, usage)

    def pieces(self, events: bytes) -> tuple[str, list[int]]:
        """Text and token ids of many events."""
        texts: list[str] = []
        ids: list[int] = []
        for completion in decode_json(self._events, events):
            if completion.choices:
                choice = completion.choices[0]
                texts.append(self.text(choice))
                ids.extend(self.ids(choice) or ())
        return "".join(texts), ids

    def _decode(self, data: bytes) -> Completion[C]:
        completion = decode_json(self._completion, data)
        if completion.error:
            raise error_in_answer(completion.error)
        if not completion.choices:
            raise_if_error_body(data)
        return completion

    def _reading(self, has_token: bool, choice: C, usage: Usage | None) -> Reading:
        return Reading(
            has_token,
            self.text(choice),
            self.ids(choice) or (),
            self.finish_reason(choice),
            usage.completion_tokens if usage else None,
            (usage.prompt_tokens or 0) if usage else 0,
        )
