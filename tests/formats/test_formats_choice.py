"""The request format follows from backend, model and the user's wish."""

from __future__ import annotations

import pytest

from lbrun.errors import ConfigError
from lbrun.formats import FORMAT_NAMES, FormatOptions, choose, make_format
from lbrun.formats.api import RequestFormat

LLAMA = ("completions", "chat", "sglang_generate")
GPT_OSS = ("sglang_generate", "completions", "chat")
QWEN = ("chat",)


@pytest.mark.parametrize(
    ("backend", "formats", "requested", "chosen"),
    [
        ("vllm", LLAMA, None, "completions"),
        ("sglang", LLAMA, None, "completions"),
        ("openai", LLAMA, None, "completions"),
        ("vllm", LLAMA, "chat", "chat"),
        ("sglang", LLAMA, "sglang_generate", "sglang_generate"),
        ("sglang", GPT_OSS, None, "sglang_generate"),
        ("vllm", GPT_OSS, None, "completions"),
        ("sglang", GPT_OSS, "completions", "completions"),
        ("vllm", QWEN, None, "chat"),
        ("openai", QWEN, "chat", "chat"),
    ],
)
def test_the_models_preference_holds_as_far_as_the_backend_serves_it(
    backend: str, formats: tuple[str, ...], requested: str | None, chosen: str
) -> None:
    assert choose(backend, formats, requested) == chosen


@pytest.mark.parametrize(
    ("backend", "formats", "requested", "message"),
    [
        ("vllm", GPT_OSS, "sglang_generate", "SGLang's own.*vllm; write completions or chat"),
        ("openai", ("sglang_generate",), "sglang_generate", "servers.backend=sglang"),
        ("vllm", ("sglang_generate",), None, "vllm serves none"),
        ("vllm", QWEN, "completions", "does not fit this model; write one of chat"),
        ("vllm", QWEN, "nonsense", "does not fit this model"),
    ],
)
def test_an_impossible_pair_says_what_to_write(
    backend: str, formats: tuple[str, ...], requested: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(backend, formats, requested)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("completions", "/v1/completions"),
        ("chat", "/v1/chat/completions"),
        ("sglang_generate", "/generate"),
    ],
)
def test_every_format_is_made_by_its_name(name: str, path: str) -> None:
    made: RequestFormat = make_format(name, FormatOptions(model="m", backend="sglang", stream=True))
    assert (made.name, made.path, made.stream) == (name, path, True)
    assert name in FORMAT_NAMES


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="completions, chat, sglang_generate"):
        make_format("gpt", FormatOptions(model="m", backend="vllm"))


def test_generate_is_refused_on_any_other_backend() -> None:
    with pytest.raises(ConfigError, match="write completions or chat"):
        make_format("sglang_generate", FormatOptions(model="m", backend="vllm"))
