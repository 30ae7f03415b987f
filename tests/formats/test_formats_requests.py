"""Request bodies: what each backend is sent, byte for byte the same each time."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from formats_captures import capture, characters
from hypothesis import given
from hypothesis import strategies as st

from lbrun.datasets.api import Image, Sample
from lbrun.errors import ConfigError
from lbrun.formats import ChatOptions, FormatOptions, JsonFormat, make_format

SAMPLING = {"temperature": 0.0, "top_p": 1.0, "top_k": 1, "seed": 42, "max_tokens": 128, "min_tokens": 1}
IDS = Sample(index=0, token_ids=b"[1,2,3]", text='say "hi"\n')
PIXEL = Image(data=bytes(range(256)), mime="image/png")
PRODUCT = Sample(index=7, fields={"title": "A {b} é", "description": 'big "red"'}, image=PIXEL)


def format_of(name: str, backend: str = "vllm", **more: Any) -> JsonFormat:
    options: dict[str, Any] = {"model": "m", "sampling": SAMPLING} | more
    return make_format(name, FormatOptions(backend=backend, **options))  # type: ignore[arg-type]


def body(name: str, backend: str = "vllm", sample: Sample = IDS, **more: Any) -> Any:
    one = format_of(name, backend, **more)
    encoded = one.encode(sample)
    assert one.encode(sample) == encoded
    return json.loads(encoded)


def test_a_completion_is_asked_for_with_token_ids() -> None:
    assert body("completions") == {"model": "m", "prompt": [1, 2, 3]} | SAMPLING


def test_a_completion_is_asked_for_with_text() -> None:
    assert body("completions", prompt="text")["prompt"] == 'say "hi"\n'


def test_the_body_is_compact() -> None:
    assert format_of("completions", sampling={}).encode(IDS) == b'{"model":"m","prompt":[1,2,3]}'


def test_a_stream_is_asked_for_with_its_usage() -> None:
    for name in ("completions", "chat"):
        fields = body(name, stream=True)
        assert fields["stream"] is True
        assert fields["stream_options"] == {"include_usage": True}
        assert "stream" not in body(name)


def test_a_generate_request_has_sglangs_names_and_no_model() -> None:
    expected = {
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 1,
        "sampling_seed": 42,
        "max_new_tokens": 128,
        "min_new_tokens": 1,
    }
    one = body("sglang_generate", "sglang")
    assert one == {"input_ids": [1, 2, 3], "sampling_params": expected}
    streamed = body("sglang_generate", "sglang", prompt="text", stream=True)
    assert streamed == {"text": 'say "hi"\n', "sampling_params": expected, "stream": True}


def test_none_is_not_sent() -> None:
    assert "top_k" not in body("completions", sampling=SAMPLING | {"top_k": None})
    params = body("sglang_generate", "sglang", sampling={"top_k": None, "max_tokens": 5})["sampling_params"]
    assert params == {"max_new_tokens": 5}


def test_a_generic_server_gets_openais_fields_alone() -> None:
    """transformers serve answers 422 to any other."""
    one = format_of("completions", "openai")
    assert one.left_out == ("top_k", "min_tokens")
    fields = json.loads(one.encode(IDS))
    assert set(fields) == {"model", "prompt", "temperature", "top_p", "seed", "max_tokens"}
    assert format_of("completions", "vllm").left_out == ()


def test_extra_body_reaches_any_server_and_overrules() -> None:
    fields = body("completions", "openai", extra_body={"top_k": 7, "max_tokens": 9})
    assert (fields["top_k"], fields["max_tokens"]) == (7, 9)
    extra = {"sampling_params": {"max_new_tokens": 9}, "lora_path": "x"}
    fields = body("sglang_generate", "sglang", extra_body=extra)
    assert fields["sampling_params"]["max_new_tokens"] == 9
    assert fields["sampling_params"]["top_k"] == 1
    assert fields["lora_path"] == "x"


@pytest.mark.parametrize("name", ["completions", "chat", "sglang_generate"])
@pytest.mark.parametrize("key", ["n", "stream", "model", "messages"])
def test_fields_that_reading_rests_on_cannot_be_overruled(name: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"extra_body.{key}"):
        format_of(name, "sglang", extra_body={key: 2})
    with pytest.raises(ConfigError, match=f"sampling.{key}"):
        format_of(name, "sglang", sampling={key: 2})


@pytest.mark.parametrize(
    ("name", "backend", "stream", "asked"),
    [
        ("completions", "vllm", True, True),
        ("completions", "sglang", True, True),
        ("completions", "openai", False, False),
        ("chat", "vllm", True, True),
        ("chat", "sglang", False, True),
        ("chat", "sglang", True, False),
        ("sglang_generate", "sglang", True, False),
    ],
)
def test_token_ids_are_asked_for_where_the_server_knows_how(
    name: str, backend: str, stream: bool, asked: bool
) -> None:
    more: dict[str, Any] = {"stream": stream, "retokenize": characters}
    assert body(name, backend, payload="token_ids", **more).get("return_token_ids", False) is asked
    assert "return_token_ids" not in body(name, backend, payload="none", **more)
    assert "return_token_ids" not in body(name, backend, payload="text", **more)


@pytest.mark.parametrize(
    ("name", "backend"), [("chat", "sglang"), ("chat", "openai"), ("completions", "openai")]
)
def test_token_ids_that_nobody_would_give_are_refused_before_the_run(name: str, backend: str) -> None:
    with pytest.raises(ConfigError, match="no token ids"):
        format_of(name, backend, payload="token_ids", stream=True)
    format_of(name, backend, payload="token_ids", stream=True, extra_body={"return_token_ids": True})


def test_ready_made_messages_go_out_as_they_are() -> None:
    messages = b'[{"role":"user","content":"hi"}]'
    sample = Sample(index=0, messages=messages)
    assert messages in format_of("chat").encode(sample)
    with_system = body("chat", sample=sample, chat=ChatOptions(system="be brief"))
    assert with_system["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]


def test_a_text_is_the_users_message() -> None:
    fields = body("chat", chat=ChatOptions(system="be brief"))
    assert fields["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": 'say "hi"\n'},
    ]


def test_a_product_fills_the_template_next_to_its_image() -> None:
    template = 'Answer as {"category": ...}. {title}: {description}'
    content = body("chat", sample=PRODUCT, chat=ChatOptions(user_template=template))["messages"][0]["content"]
    assert content[0] == {
        "type": "text",
        "text": 'Answer as {"category": ...}. A {b} é: big "red"',
    }
    uri = content[1]["image_url"]["url"]
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data, validate=True) == PIXEL.data


def test_the_image_may_come_first() -> None:
    chat = ChatOptions(user_template="{title}", image_position="before")
    content = body("chat", sample=PRODUCT, chat=chat)["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"]


def test_a_schema_guides_decoding() -> None:
    schema = {"type": "object", "properties": {"brand": {"type": "string"}}}
    fields = body("chat", chat=ChatOptions(json_schema=schema))
    assert fields["response_format"]["type"] == "json_schema"
    assert fields["response_format"]["json_schema"]["schema"] == schema
    assert "response_format" not in body("chat")


@pytest.mark.parametrize(
    ("name", "sample", "more", "message"),
    [
        ("completions", Sample(index=3, text="x"), {}, "sample 3 has no token ids"),
        ("completions", Sample(index=3), {"prompt": "text"}, "sample 3 has no text"),
        ("chat", Sample(index=3, token_ids=b"[1]"), {}, "sample 3 has no messages"),
        ("chat", PRODUCT, {}, "no prompt template"),
        ("chat", PRODUCT, {"chat": ChatOptions(user_template="{brand}")}, "asks for {brand}; .*{title}"),
        (
            "chat",
            Sample(index=3, fields={"title": "t"}, image=Image(b"x", 'image/"')),
            {"chat": ChatOptions(user_template="{title}")},
            "no media type",
        ),
        ("completions", Sample(index=3, text="\ud800"), {"prompt": "text"}, "surrogate"),
    ],
)
def test_a_sample_that_cannot_be_expressed_is_refused(
    name: str, sample: Sample, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        format_of(name, **more).encode(sample)


@given(title=st.text(st.characters(exclude_categories=["Cs"])), data=st.binary(max_size=300))
def test_any_text_and_image_arrive_unchanged(title: str, data: bytes) -> None:
    sample = Sample(index=0, fields={"title": title}, image=Image(data, "image/jpeg"))
    content = body("chat", sample=sample, chat=ChatOptions(user_template="{title}"))["messages"][0]["content"]
    assert content[0]["text"] == title
    assert base64.b64decode(content[1]["image_url"]["url"].partition(",")[2]) == data


@pytest.mark.parametrize(
    ("vendor", "name", "prompt"),
    [
        ("vllm", "ok_comp_stream_usage_token_ids", "token_ids"),
        ("vllm", "ok_comp_text", "text"),
        ("sglang", "ok_comp_stream_usage", "text"),
        ("sglang", "gen_ok_ids_stream", "token_ids"),
        ("sglang", "gen_ok_seed", "token_ids"),
        ("transformers", "ok_comp_stream_usage", "text"),
        ("transformers", "ok_chat", "text"),
        ("vllm", "vl_ok_image", "text"),
    ],
)
def test_a_body_is_what_a_real_server_has_served(vendor: str, name: str, prompt: str) -> None:
    """The request of a capture, put together from its parts, is the same JSON."""
    taken = capture(vendor, name)
    request = dict(taken.request)
    value = next(request.pop(key) for key in ("prompt", "input_ids", "text", "messages") if key in request)
    stream = request.pop("stream", False)
    request.pop("stream_options", None)
    wants_ids = request.pop("return_token_ids", False)
    model = request.pop("model", "")
    sampling = request.pop("sampling_params", request)
    given_names = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens", "sampling_seed": "seed"}
    sample = {
        "token_ids": Sample(index=0, token_ids=json.dumps(value).encode()),
        "text": Sample(index=0, text=value if isinstance(value, str) else None),
    }[prompt]
    if taken.format_name == "chat":
        sample = Sample(index=0, messages=json.dumps(value).encode())
    encoded = body(
        taken.format_name,
        "openai" if vendor == "transformers" else vendor,
        sample,
        model=model,
        prompt=prompt,
        stream=stream,
        sampling={given_names.get(key, key): value for key, value in sampling.items()},
        payload="token_ids" if wants_ids else "none",
    )
    assert encoded == taken.request
