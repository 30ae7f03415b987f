"""What the OpenAI-style endpoints are asked: typed requests, and prompts as the engine sees them.

Both backends share these; what each refuses, and in which words, is their own.
"""

from __future__ import annotations

import array
from typing import Any

import msgspec

from lbrun.embedded.answers import Answer, AnswerModel, count_tokens, prompt_key, split_text
from lbrun.embedded.exchange import RefusalError
from lbrun.embedded.images import decode_data_uri, image_size, image_tokens
from lbrun.embedded.schema import fitting_json

_IMAGE_ID = 0  # the token that stands for a piece of an image


class OutOfVocabularyError(RefusalError):
    """A prompt holds a token id that the model does not know."""


class StreamOptions(msgspec.Struct):
    """`stream_options`: whether usage comes in a last event, and whether in every event."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class OpenAIRequest(msgspec.Struct, kw_only=True):
    """The fields that completions and chat have in common; unknown ones are ignored, as the servers do."""

    model: str | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    response_format: dict[str, Any] | None = None
    guided_json: dict[str, Any] | str | None = None
    structured_outputs: dict[str, Any] | None = None

    @property
    def include_usage(self) -> bool:
        """A stream is to end with an event of usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Every event of a stream is to carry the usage so far."""
        return self.include_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)

    def schema(self) -> Any:
        """The JSON schema that the answer must fit, None for free text."""
        schema: Any = self.guided_json or (self.structured_outputs or {}).get("json")
        wanted = self.response_format or {}
        if wanted.get("type") == "json_schema":
            described = wanted.get("json_schema")
            schema = described.get("schema") if isinstance(described, dict) else None
        elif wanted.get("type") == "json_object":
            schema = {"type": "object"}
        if isinstance(schema, str):
            return msgspec.json.decode(schema)
        return schema


class CompletionRequest(OpenAIRequest, kw_only=True):
    """A request to /v1/completions."""

    prompt: str | list[int] | None = None
    max_tokens: int | None = 16


class ImageUrl(msgspec.Struct):
    """Where an image is."""

    url: str


class ContentPart(msgspec.Struct):
    """One part of a message's content."""

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


class Message(msgspec.Struct):
    """One chat message."""

    role: str
    content: str | list[ContentPart] | None = None

    def parts(self) -> list[ContentPart]:
        """The content as parts, also where it is plain text."""
        if isinstance(self.content, list):
            return self.content
        return [ContentPart("text", self.content or "")]


class ChatRequest(OpenAIRequest, kw_only=True):
    """A request to /v1/chat/completions."""

    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None

    @property
    def token_limit(self) -> int | None:
        """The limit by either of its names."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class Prompt(msgspec.Struct, frozen=True):
    """A prompt as the engine sees it.

    content: what the answer is derived from. ids: the tokens, where the client sent tokens.
    text: the text, where it sent text. n_image_tokens: those that images take.
    """

    n_tokens: int
    content: bytes
    ids: list[int] | None = None
    text: str = ""
    n_image_tokens: int = 0

    def token_ids(self, model: AnswerModel) -> list[int]:
        """The tokens; their number is `n_tokens`."""
        if self.ids is not None:
            return self.ids
        return [*model.ids_of(split_text(self.text)), *[_IMAGE_ID] * self.n_image_tokens]


def prompt_of_ids(ids: list[int]) -> Prompt:
    """A prompt of token ids; they must lie below 2^63."""
    return Prompt(len(ids), array.array("q", ids).tobytes(), ids=ids)


def prompt_of_text(text: str) -> Prompt:
    """A prompt of text."""
    return Prompt(count_tokens(text), text.encode("utf-8", "surrogatepass"), text=text)


def prompt_of_messages(messages: list[Message]) -> Prompt:
    """A chat prompt, written out by a plain template. Raises ImageError for an image that is none."""
    text: list[str] = []
    images: list[str] = []
    n_image_tokens = 0
    for message in messages:
        text.append(f"<|{message.role}|>\n")
        for part in message.parts():
            if part.image_url is not None:
                n_image_tokens += image_tokens(*image_size(decode_data_uri(part.image_url.url)))
                images.append(part.image_url.url)
            else:
                text.append(part.text or "")
        text.append("\n")
    text.append("<|assistant|>\n")
    written = "".join(text)
    content = "\0".join([written, *images]).encode("utf-8", "surrogatepass")
    return Prompt(
        count_tokens(written) + n_image_tokens, content, text=written, n_image_tokens=n_image_tokens
    )


def drawn_answer(
    answers: AnswerModel, request: OpenAIRequest, prompt: Prompt, max_tokens: int, seed: int
) -> tuple[Answer, bytes]:
    """The answer to a checked request, and the key it comes from. seed: the server's own.

    Raises msgspec.DecodeError where the schema is given as text that is no JSON.
    """
    key = prompt_key(prompt.content, seed, request.seed)
    schema = request.schema()
    if schema is not None:
        return answers.answer_text(fitting_json(schema, key), max_tokens), key
    return answers.answer(key, max_tokens, request.min_tokens or 0, bool(request.ignore_eos)), key
