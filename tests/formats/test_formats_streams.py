"""What counts as a first token, an end, an error, and how events may be written."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from formats_captures import characters
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrun.attempt import Answer, BadAnswer, FailureKind
from lbrun.formats import FormatOptions, make_format
from lbrun.formats.options import PayloadKind
from lbrun.formats.payload import pack_ids
from lbrun.formats.stream import SseDecoder

DONE = b"data: [DONE]\n\n"
USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}


def decoder(name: str = "completions", payload: PayloadKind = "none", **more: Any) -> SseDecoder:
    backend = "sglang" if name == "sglang_generate" else "vllm"
    options = FormatOptions(model="m", backend=backend, stream=True, payload=payload, **more)
    return make_format(name, options).stream_decoder()


def event(fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def text(piece: str | None, **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "text": piece, "finish_reason": None} | more]})


def delta(fields: dict[str, Any], usage: dict[str, int] | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": fields, "finish_reason": None} | more
    return event({"choices": [choice]} | ({"usage": usage} if usage else {}))


def generated(ids: list[int], finish: dict[str, Any] | None = None, **more: Any) -> bytes:
    meta = {"completion_tokens": len(ids), "prompt_tokens": 5, "finish_reason": finish}
    return event({"text": "x" * len(ids), "output_ids": ids, "meta_info": meta} | more)


def read(body: bytes, name: str = "completions", payload: PayloadKind = "none", **more: Any) -> Answer:
    one = decoder(name, payload, **more)
    one.feed(body)
    return one.finish()


def failure(body: bytes, name: str = "completions", payload: PayloadKind = "none", **more: Any) -> BadAnswer:
    with pytest.raises(BadAnswer) as caught:
        read(body, name, payload, **more)
    return caught.value


ANSWER = text("a") + text("b") + text("c", finish_reason="stop") + event(USAGE) + DONE


# -- the first token


@pytest.mark.parametrize(
    ("fields", "more", "is_token"),
    [
        ({"role": "assistant"}, {}, False),
        ({"role": "assistant", "content": ""}, {}, False),
        ({"role": "assistant", "content": None}, {}, False),
        ({"role": "assistant", "content": "Hi"}, {}, True),
        ({"content": "Hi"}, {}, True),
        ({"content": "Hi"}, {"finish_reason": "length"}, True),
        ({"content": ""}, {}, True),
        ({"content": ""}, {"token_ids": [104]}, True),
        ({"content": ""}, {"token_ids": []}, False),
        ({"content": ""}, {"finish_reason": "stop"}, False),
        ({"content": ""}, {"finish_reason": "stop", "token_ids": [2]}, True),
        ({"reasoning": "Hm"}, {}, True),
        ({"reasoning_content": "Hm", "content": None}, {}, True),
        ({"reasoning_content": None}, {}, False),
        ({"tool_calls": [{"function": {"name": "f"}}]}, {}, True),
        ({}, {}, False),
    ],
)
def test_which_delta_of_a_chat_carries_a_token(
    fields: dict[str, Any], more: dict[str, Any], is_token: bool
) -> None:
    one = decoder("chat")
    one.feed(delta(fields, **more))
    assert one.has_token is is_token


@pytest.mark.parametrize(
    ("piece", "more", "is_token"),
    [
        ("a", {}, True),
        ("", {}, True),
        ("", {"token_ids": [7]}, True),
        ("", {"token_ids": []}, False),
        ("", {"finish_reason": "stop"}, False),
        (None, {}, False),
    ],
)
def test_which_event_of_a_completion_carries_a_token(
    piece: str | None, more: dict[str, Any], is_token: bool
) -> None:
    one = decoder()
    one.feed(text(piece, **more))
    assert one.has_token is is_token


def test_an_events_own_usage_decides_where_its_text_is_empty() -> None:
    one = decoder("chat")
    one.feed(delta({"content": ""}, usage={"completion_tokens": 0}))
    assert not one.has_token
    one.feed(delta({"role": "assistant", "content": ""}, usage={"completion_tokens": 1}))
    assert one.has_token


def test_an_answer_of_one_invisible_token_has_its_first_token_with_the_count() -> None:
    """An end-of-text token alone: nothing shows before usage counts it."""
    one = decoder()
    one.feed(text("", finish_reason="stop"))
    assert not one.has_token
    one.feed(event({"choices": [], "usage": {"completion_tokens": 1}}))
    assert one.has_token
    one.feed(DONE)
    assert one.finish().n_tokens == 1


def test_a_generate_stream_has_its_first_token_with_its_first_count() -> None:
    one = decoder("sglang_generate")
    one.feed(generated([]))
    assert not one.has_token
    one.feed(generated([7]))
    assert one.has_token


def test_the_first_payload_is_that_of_the_first_event() -> None:
    body = text("ab", token_ids=[1, 2]) + text("c", token_ids=[3], finish_reason="stop") + event(USAGE)
    by_ids, by_text = decoder(payload="token_ids"), decoder(payload="text")
    for one in (by_ids, by_text):
        one.feed(body)
    assert by_ids.first_payload() == pack_ids([1, 2])
    assert by_ids.finish().payload == pack_ids([1, 2, 3])
    assert by_text.first_payload() == b"ab"
    assert by_text.finish().payload == b"abc"


# -- the end


def test_done_ends_a_stream() -> None:
    one = decoder()
    one.feed(ANSWER)
    assert one.ended
    assert one.finish() == Answer(3, 5, None, "stop")


def test_a_finish_reason_ends_a_stream_without_done() -> None:
    assert read(ANSWER.removesuffix(DONE)) == Answer(3, 5, None, "stop")


def test_done_alone_ends_a_stream_that_never_gives_a_finish_reason() -> None:
    assert read(text("a") + event(USAGE) + DONE) == Answer(3, 5, None, "")


def test_a_stream_with_neither_is_unfinished() -> None:
    assert failure(text("a") + event(USAGE)).kind is FailureKind.NO_END_MARK


def test_done_within_a_text_is_no_end() -> None:
    body = text("data: [DONE]\n\n") + text("[DONE]")
    one = decoder()
    one.feed(body)
    assert not one.ended
    assert failure(body).kind is FailureKind.NO_END_MARK


@pytest.mark.parametrize("payload", ["none", "text", "token_ids"])
@pytest.mark.parametrize("together", [True, False])
def test_nothing_after_done_is_read(payload: PayloadKind, together: bool) -> None:
    one = decoder(payload=payload, retokenize=characters)
    late = event({"error": "too late"}) + b"garbage\n\n"
    for part in [ANSWER + late] if together else [ANSWER, late]:
        one.feed(part)
    assert one.ended
    assert one.error is None
    assert one.finish().n_tokens == 3


def test_a_last_event_may_lack_its_blank_line() -> None:
    assert read(ANSWER.removesuffix(b"\n\n")) == Answer(3, 5, None, "stop")
    assert read(ANSWER.removesuffix(DONE).removesuffix(b"\n")) == Answer(3, 5, None, "stop")


def test_a_token_in_an_event_without_blank_line_is_found_by_finish() -> None:
    one = decoder()
    one.feed(
        event({"choices": [{"text": "a", "finish_reason": "stop"}], "usage": {"completion_tokens": 1}})[:-2]
    )
    assert not one.has_token
    assert one.finish().n_tokens == 1
    assert one.has_token


def test_a_truncated_last_event_is_malformed() -> None:
    assert failure(text("a") + text("b", finish_reason="stop")[:-20]).kind is FailureKind.MALFORMED


@pytest.mark.parametrize("body", [b"", b"\n\n", b": ping\n\n", b"<html>no</html>"])
def test_a_body_without_events_is_unfinished(body: bytes) -> None:
    assert failure(body).kind is FailureKind.NO_END_MARK


@pytest.mark.parametrize("name", ["completions", "chat", "sglang_generate"])
def test_done_without_any_token_is_an_empty_answer(name: str) -> None:
    assert failure(DONE, name).kind is FailureKind.EMPTY_ANSWER


def test_a_count_of_zero_is_an_empty_answer() -> None:
    body = text("", finish_reason="stop") + event({"choices": [], "usage": {"completion_tokens": 0}}) + DONE
    assert failure(body).kind is FailureKind.EMPTY_ANSWER


# -- counts


def test_without_usage_the_servers_ids_are_counted() -> None:
    body = text("ab", token_ids=[1, 2]) + text("c", token_ids=[3], finish_reason="stop") + DONE
    assert read(body, payload="token_ids") == Answer(3, 0, pack_ids([1, 2, 3]), "stop")


def test_without_usage_and_ids_there_is_no_count_even_of_events() -> None:
    body = text("a") + text("b", finish_reason="stop") + DONE
    assert failure(body).kind is FailureKind.NO_TOKEN_COUNT


def test_ids_that_nobody_gathers_are_not_taken_for_all_ids() -> None:
    body = text("ab", token_ids=[1, 2]) + text("c", token_ids=[3], finish_reason="stop") + DONE
    assert failure(body).kind is FailureKind.NO_TOKEN_COUNT


def test_ids_that_do_not_match_the_count_are_malformed() -> None:
    body = text("a", token_ids=[1]) + text("b", token_ids=[2], finish_reason="stop") + event(USAGE) + DONE
    bad = failure(body, payload="token_ids")
    assert bad.kind is FailureKind.MALFORMED
    assert "counts 3 output tokens and sent 2" in bad.message


def test_missing_ids_say_what_to_do() -> None:
    bad = failure(ANSWER, payload="token_ids")
    assert bad.kind is FailureKind.NO_TOKEN_COUNT
    assert "return_token_ids" in bad.message


def test_a_local_tokenizer_makes_ids_of_text_and_leaves_the_count() -> None:
    one = decoder(payload="token_ids", retokenize=characters)
    one.feed(text("Hi") + text(" you", finish_reason="stop") + event(USAGE) + DONE)
    assert one.first_payload() == pack_ids(characters("Hi"))
    assert one.finish() == Answer(3, 5, pack_ids(characters("Hi you")), "stop")


def test_an_id_beyond_int32_is_implausible() -> None:
    one = decoder(payload="token_ids")
    one.feed(text("a", token_ids=[2**31]))
    assert one.error is not None
    assert one.error.kind is FailureKind.IMPLAUSIBLE


def test_continuous_usage_counts_by_its_last_event() -> None:
    body = b"".join(
        event({"choices": [{"text": "a", "finish_reason": reason}], "usage": {"completion_tokens": n}})
        for n, reason in [(1, None), (2, None), (3, "length")]
    )
    assert read(body + DONE).n_tokens == 3


def test_reasoning_is_counted_and_is_not_text() -> None:
    body = (
        delta({"role": "assistant", "content": ""})
        + delta({"reasoning": "Hm. "})
        + delta({"content": "Yes"}, finish_reason="stop")
        + event(USAGE)
        + DONE
    )
    assert read(body, "chat", "text") == Answer(3, 5, b"Yes", "stop")


def test_a_generate_stream_is_its_last_event() -> None:
    stop = {"type": "stop", "matched": 2}
    body = generated([7]) + generated([7, 8]) + generated([7, 8, 9], stop) + DONE
    assert read(body, "sglang_generate", "token_ids") == Answer(3, 5, pack_ids([7, 8, 9]), "stop")
    assert read(body, "sglang_generate", "text").payload == b"xxx"


def test_a_generate_stream_in_separate_pieces_is_refused_with_the_cause() -> None:
    second = {"text": "b", "output_ids": [8], "meta_info": {"completion_tokens": 2, "finish_reason": None}}
    bad = failure(generated([7]) + event(second) + DONE, "sglang_generate", "token_ids")
    assert bad.kind is FailureKind.MALFORMED
    assert "incremental streaming" in bad.message


def test_a_long_cumulative_stream_keeps_its_last_event_alone() -> None:
    ids = list(range(3000))
    one = decoder("sglang_generate", "token_ids")
    for n in range(1, len(ids), 50):
        one.feed(generated(ids[:n]))
    one.feed(generated(ids, {"type": "length"}) + DONE)
    assert sum(len(block) for block in one._tail) < 3 * 40_000
    assert one.finish() == Answer(3000, 5, pack_ids(ids), "length")


# -- errors


@pytest.mark.parametrize(
    "fields",
    [
        {"error": {"message": "engine dead", "type": "Internal", "code": 500}},
        {"error": "engine dead"},
        {"error": {"detail": "engine dead"}},
        {"object": "error", "message": "engine dead", "code": 500},
        {"choices": [{"text": "", "finish_reason": "error"}], "error": {"message": "engine dead"}},
    ],
)
@pytest.mark.parametrize("tokens_before", [0, 1, 300])
def test_an_error_event_ends_the_attempt_at_once(fields: dict[str, Any], tokens_before: int) -> None:
    one = decoder()
    one.feed(text("a") * tokens_before)
    one.feed(event(fields))
    assert one.error is not None
    assert one.error.kind is FailureKind.ERROR_IN_ANSWER
    assert "engine dead" in one.error.message
    one.feed(DONE)
    with pytest.raises(BadAnswer, match="engine dead"):
        one.finish()


def test_an_error_event_in_a_burst_is_found_wherever_it_stands() -> None:
    for position in (1, 100, 199):
        events = [text("a")] * 200
        events.insert(position, event({"error": {"message": "engine dead"}}))
        assert failure(b"".join(events) + ANSWER).kind is FailureKind.ERROR_IN_ANSWER


def test_an_error_event_in_a_cumulative_stream_is_found_when_it_comes() -> None:
    one = decoder("sglang_generate")
    one.feed(generated(list(range(5000))))
    one.feed(event({"error": {"message": "scheduler dead"}}))
    assert one.error is not None
    assert "scheduler dead" in one.error.message


@pytest.mark.parametrize("word", ["error", '"error"', '{"error": "no"}', '\\"error\\"'])
def test_a_text_about_errors_is_no_error(word: str) -> None:
    body = text("a") + text(word) + text("c", finish_reason="stop") + event(USAGE) + DONE
    assert read(body, payload="text").payload == f"a{word}c".encode()
    assert read(body).n_tokens == 3


def test_an_error_that_is_null_is_no_error() -> None:
    body = b"".join(
        event({"choices": [{"text": "a", "finish_reason": reason}], "error": None})
        for reason in (None, None, "stop")
    )
    assert read(body + event(USAGE) + DONE).n_tokens == 3


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_answer_given_up_is_an_error(reason: str) -> None:
    body = text("a") + text("", finish_reason=reason) + event(USAGE) + DONE
    assert failure(body).kind is FailureKind.ERROR_IN_ANSWER


def test_an_aborted_generate_stream_says_why() -> None:
    abort = {"type": "abort", "message": "out of memory", "status_code": 500}
    bad = failure(generated([7]) + generated([7], abort) + DONE, "sglang_generate")
    assert bad.kind is FailureKind.ERROR_IN_ANSWER
    assert "out of memory" in bad.message


def test_a_long_error_message_is_cut() -> None:
    assert len(failure(event({"error": {"message": "x" * 5000}})).message) <= 300


def test_an_error_that_is_not_streamed_is_an_error() -> None:
    bad = failure(json.dumps({"error": {"message": "no such model"}}, indent=1).encode())
    assert bad.kind is FailureKind.ERROR_IN_ANSWER
    assert "no such model" in bad.message


def test_a_whole_answer_to_a_stream_is_malformed() -> None:
    bad = failure(json.dumps({"choices": [{"text": "a"}], "usage": {"completion_tokens": 1}}).encode())
    assert bad.kind is FailureKind.MALFORMED


# -- how events may be written


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
def test_every_line_end_of_the_standard_is_read(line_end: bytes, step: int) -> None:
    body = ANSWER.replace(b"\n", line_end)
    one = decoder(payload="text")
    for start in range(0, len(body), step):
        one.feed(body[start : start + step])
    assert one.ended
    assert one.finish() == Answer(3, 5, b"abc", "stop")


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda body: body.replace(b"data: ", b"data:"),
        lambda body: body.replace(b"data: ", b": ping\n\ndata: "),
        lambda body: body.replace(b"data: ", b": ping\ndata: "),
        lambda body: body.replace(b"data: ", b"event: message\nid: 7\nretry: 10\ndata: "),
        lambda body: body.replace(b'{"choices"', b'{\ndata: "choices"'),
        lambda body: body.replace(b"data: ", b"\n\n\ndata: "),
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: body.replace(b"data: ", b"data\ndata: "),
        lambda body: body.replace(b"data: ", b"data:\n\ndata: "),
        lambda body: body.replace(b"data: ", b"data: \n\ndata: "),
    ],
)
def test_every_way_to_write_an_event_is_read(rewrite: Any) -> None:
    assert read(rewrite(ANSWER), payload="text") == Answer(3, 5, b"abc", "stop")
    assert read(rewrite(ANSWER)) == Answer(3, 5, None, "stop")


def test_characters_split_between_reads_are_whole_again() -> None:
    body = (text("日本") + text("😀", finish_reason="stop") + event(USAGE) + DONE).replace(
        json.dumps("日本").encode(), '"日本"'.encode()
    )
    for cut in range(len(body)):
        one = decoder(payload="text")
        one.feed(body[:cut])
        one.feed(body[cut:])
        assert one.finish().payload == "日本😀".encode()


def test_a_stream_of_many_reads_is_the_same_as_one_read() -> None:
    """Long enough for gathered blocks to be read in the middle and for old events to be dropped."""
    pieces = [f"word {n} " for n in range(2000)]
    body = b"".join(text(piece, token_ids=[n]) for n, piece in enumerate(pieces))
    body += text("", finish_reason="length", token_ids=[])
    body += event({"choices": [], "usage": {"completion_tokens": 2000, "prompt_tokens": 5}}) + DONE
    for step in (113, 4096, len(body)):
        for payload, made in (
            ("none", None),
            ("text", "".join(pieces).encode()),
            ("token_ids", pack_ids(list(range(2000)))),
        ):
            one = decoder(payload=payload)  # type: ignore[arg-type]
            for start in range(0, len(body), step):
                one.feed(body[start : start + step])
            assert one.finish() == Answer(2000, 5, made, "length")


def test_a_stream_without_payload_is_not_kept() -> None:
    one = decoder()
    for _ in range(200):
        one.feed(text("a") * 100)
    assert sum(len(block) for block in one._tail) < 40_000
    assert not one._gathered


# -- limits


def test_an_event_without_end_is_too_large() -> None:
    one = decoder(max_event_bytes=1000)
    one.feed(text("a"))
    one.feed(b"data: " + b"x" * 900)
    assert one.error is None
    one.feed(b"x" * 200)
    assert one.error is not None
    assert one.error.kind is FailureKind.TOO_LARGE


def test_a_stream_whose_payload_grows_without_end_is_too_large() -> None:
    one = decoder(payload="text", max_gathered_bytes=10_000)
    for _ in range(200):
        one.feed(text("a"))
    assert one.error is not None
    assert one.error.kind is FailureKind.TOO_LARGE


# -- anything at all

FIELDS = [
    *("choices", "usage", "error", "object", "message", "detail"),
    *("text", "delta", "content", "role", "token_ids", "finish_reason", "completion_tokens"),
    *("meta_info", "output_ids", "type"),
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)
LINES = st.one_of(
    st.binary(max_size=40),
    JSON_VALUES.map(event),
    st.sampled_from([DONE, ANSWER, text("a"), event(USAGE), b"\n\n", b"\r\n\r\n", b": ping\n\n", b"data:"]),
)


@settings(max_examples=400, deadline=None)
@given(
    parts=st.lists(LINES, max_size=8),
    name=st.sampled_from(["completions", "chat", "sglang_generate"]),
    payload=st.sampled_from(["none", "token_ids", "text"]),
)
def test_no_bytes_raise_from_feed_or_make_an_answer_without_tokens(
    parts: list[bytes], name: str, payload: PayloadKind
) -> None:
    one = decoder(name, payload, retokenize=characters)
    for part in parts:
        one.feed(part)
    first = one.first_payload()
    assert first is None or payload != "none"
    try:
        answer = one.finish()
    except BadAnswer:
        return
    assert answer.n_tokens > 0
    assert one.has_token
    assert one.error is None


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [
                text("a"),
                text("é", token_ids=[1]),
                text("", finish_reason="stop"),
                event(USAGE),
                b": ping\n\n",
                b"data:" + json.dumps({"choices": []}).encode() + b"\n\n",
                event({"error": {"message": "no"}}),
                event({"choices": [{"text": "error"}]}),
            ]
        ),
        max_size=30,
    ),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    end=st.sampled_from([DONE, b"", b"data: [DONE]"]),
    payload=st.sampled_from(["none", "token_ids", "text"]),
    data=st.data(),
)
def test_any_stream_reads_the_same_in_any_split(
    parts: list[bytes], line_end: bytes, end: bytes, payload: PayloadKind, data: st.DataObject
) -> None:
    body = (b"".join(parts) + end).replace(b"\n", line_end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=10)))

    def outcome(edges: list[int]) -> tuple[object, ...]:
        one = decoder(payload=payload, retokenize=characters)
        for start, stop in pairwise(edges):
            one.feed(body[start:stop])
        try:
            return one.finish(), one.first_payload(), one.has_token
        except BadAnswer as bad:
            return bad.kind, bad.message, one.has_token

    assert outcome([0, *cuts, len(body)]) == outcome([0, len(body)])
