"""Whole answers: what is one, and what each thing is that is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from formats_captures import characters
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrun.attempt import Answer, BadAnswer, FailureKind
from lbrun.formats import FormatOptions, JsonFormat, make_format
from lbrun.formats.options import PayloadKind
from lbrun.formats.payload import pack_ids

NAMES = ["completions", "chat", "sglang_generate"]


def format_of(name: str, payload: PayloadKind = "none", **more: Any) -> JsonFormat:
    backend = "sglang" if name == "sglang_generate" else "vllm"
    return make_format(name, FormatOptions(model="m", backend=backend, payload=payload, **more))


def failure(name: str, body: bytes, payload: PayloadKind = "none") -> BadAnswer:
    with pytest.raises(BadAnswer) as caught:
        format_of(name, payload).decode(body)
    return caught.value


def whole(name: str, n_tokens: int | None, finish: str | None = "stop", **output: Any) -> bytes:
    """An answer as each API gives it; output: text, ids, content, reasoning."""
    if name == "sglang_generate":
        reason = {"type": finish} if finish else None
        meta = {"completion_tokens": n_tokens, "prompt_tokens": 5, "finish_reason": reason}
        fields: dict[str, Any] = {"text": output.get("text", ""), "meta_info": meta}
        if "ids" in output:
            fields["output_ids"] = output["ids"]
        return json.dumps(fields).encode()
    choice: dict[str, Any] = {"finish_reason": finish, "token_ids": output.get("ids")}
    if name == "chat":
        choice["message"] = {"role": "assistant", "content": output.get("text")}
        choice["message"] |= output.get("message", {})
    else:
        choice["text"] = output.get("text", "")
    usage = {"usage": {"completion_tokens": n_tokens, "prompt_tokens": 5}} if n_tokens is not None else {}
    return json.dumps({"choices": [choice]} | usage).encode()


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_has_the_servers_count(name: str) -> None:
    assert format_of(name).decode(whole(name, 3, text="abc")) == Answer(3, 5, None, "stop")


@pytest.mark.parametrize("name", NAMES)
def test_an_answers_payload_is_its_ids_or_text(name: str) -> None:
    body = whole(name, 3, text="é", ids=[1, 2, 3])
    assert format_of(name, "token_ids").decode(body).payload == b"\1\0\0\0\2\0\0\0\3\0\0\0"
    assert format_of(name, "text").decode(body).payload == "é".encode()


@pytest.mark.parametrize("name", NAMES)
def test_without_a_count_the_ids_are_counted(name: str) -> None:
    body = whole(name, None, text="abc", ids=[1, 2, 3])
    assert format_of(name).decode(body).n_tokens == 3
    assert format_of(name, "token_ids").decode(body).n_tokens == 3


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_without_count_or_ids_says_what_to_switch_on(name: str) -> None:
    bad = failure(name, whole(name, None, text="abc"))
    assert bad.kind is FailureKind.NO_TOKEN_COUNT
    assert "usage" in bad.message


@pytest.mark.parametrize("name", NAMES)
def test_a_local_tokenizer_is_used_where_the_server_sends_text_alone(name: str) -> None:
    one = format_of(name, "token_ids", retokenize=characters)
    assert one.decode(whole(name, 3, text="Hi")) == Answer(3, 5, pack_ids([72, 105]), "stop")
    assert one.decode(whole(name, 2, text="Hi", ids=[8, 9])).payload == pack_ids([8, 9])


@pytest.mark.parametrize("name", NAMES)
def test_ids_that_do_not_match_the_count_are_malformed(name: str) -> None:
    bad = failure(name, whole(name, 3, text="ab", ids=[1, 2]), "token_ids")
    assert bad.kind is FailureKind.MALFORMED


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_without_tokens_is_empty(name: str) -> None:
    assert failure(name, whole(name, 0)).kind is FailureKind.EMPTY_ANSWER


@pytest.mark.parametrize("name", NAMES)
def test_a_negative_count_is_implausible(name: str) -> None:
    assert failure(name, whole(name, -1)).kind is FailureKind.IMPLAUSIBLE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_answer_given_up_is_an_error(name: str, reason: str) -> None:
    assert failure(name, whole(name, 3, finish=reason, text="abc")).kind is FailureKind.ERROR_IN_ANSWER


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "fields",
    [
        {"error": {"message": "out of memory", "code": 500}},
        {"error": "out of memory"},
        {"object": "error", "message": "out of memory"},
        {"detail": "out of memory"},
    ],
)
def test_an_error_object_is_an_error_in_the_servers_words(name: str, fields: dict[str, Any]) -> None:
    bad = failure(name, json.dumps(fields).encode())
    assert bad.kind is FailureKind.ERROR_IN_ANSWER
    assert "out of memory" in bad.message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"<html>busy</html>",
        b'{"choices": []}',
        b'{"choices": [null]}',
        b'{"choices": "none", "meta_info": 3}',
        b'{"choices": [{"text": "\xff", "message": {"content": "\xff"}}]}',
        b'{"choices": [{"text": 7, "message": 7}]}',
        b'{"choices":' * 20_000,
        b'{"unknown":' * 20_000,
    ],
)
def test_anything_else_is_malformed(name: str, body: bytes) -> None:
    assert failure(name, body).kind is FailureKind.MALFORMED


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_answer_is_malformed(name: str) -> None:
    body = whole(name, 3, text="abc", ids=[1, 2, 3])
    for end in range(len(body)):
        assert failure(name, body[:end]).kind is FailureKind.MALFORMED


def test_reasoning_and_tool_calls_are_counted_and_are_not_text() -> None:
    for message in ({"reasoning": "Hm."}, {"reasoning_content": "Hm."}, {"tool_calls": [{"id": "1"}]}):
        answer = format_of("chat", "text").decode(whole("chat", 3, text=None, message=message))
        assert answer == Answer(3, 5, b"", "stop")


def test_an_aborted_generate_says_why() -> None:
    body = {"text": "", "meta_info": {"finish_reason": {"type": "abort", "message": "no memory"}}}
    bad = failure("sglang_generate", json.dumps(body).encode())
    assert bad.kind is FailureKind.ERROR_IN_ANSWER
    assert "no memory" in bad.message


@settings(max_examples=300, deadline=None)
@given(
    body=st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["choices", "usage", "meta_info", "error", "text", "output_ids"]),
        st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3),
        max_size=4,
    ).map(lambda fields: json.dumps(fields).encode()),
    name=st.sampled_from(NAMES),
    payload=st.sampled_from(["none", "text", "token_ids"]),
)
def test_no_bytes_are_an_answer_without_tokens(body: bytes, name: str, payload: PayloadKind) -> None:
    try:
        answer = format_of(name, payload, retokenize=characters).decode(body)
    except BadAnswer:
        return
    assert answer.n_tokens > 0
