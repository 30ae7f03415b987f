"""Answers of real vLLM, SGLang and transformers servers are read for what they are."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from formats_captures import Capture, Reading, all_captures, capture, characters, read_slowly
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrun.attempt import Answer, BadAnswer, FailureKind
from lbrun.formats.options import PayloadKind
from lbrun.formats.stream import SseDecoder

CAPTURES = all_captures()
# several prompts, or several answers to one: never asked for
SEVERAL = [one for one in CAPTURES if "_batch" in one.name or "_n2" in one.name]
BATCHES = [one for one in SEVERAL if not one.is_stream]
WHOLE = [one for one in CAPTURES if not one.is_stream and one not in SEVERAL]
STREAMS = [one for one in CAPTURES if one.is_stream and one not in SEVERAL]
GOOD_STREAMS = [
    one for one in STREAMS if not one.name.startswith("shut_") and one.name != "gen_err_too_long_stream"
]
COUNTED_STREAMS = [one for one in GOOD_STREAMS if read_slowly(one).n_tokens is not None]
UNCOUNTED_STREAMS = [one for one in GOOD_STREAMS if one not in COUNTED_STREAMS]


def ids_of(captures: list[Capture]) -> list[str]:
    return [one.id for one in captures]


def pack(ids: list[int]) -> bytes:
    return struct.pack(f"<{len(ids)}i", *ids)


def expected(reading: Reading, payload: PayloadKind) -> Answer:
    assert reading.n_tokens is not None
    made: bytes | None = None
    if payload == "text":
        made = reading.text.encode()
    elif payload == "token_ids":
        made = pack(reading.ids if reading.ids is not None else characters(reading.text))
    return Answer(reading.n_tokens, reading.n_input_tokens, made, reading.finish_reason)


def outcome(decoder: SseDecoder) -> tuple[object, ...]:
    """What became of a stream; two readings of it are the same if this is."""
    try:
        answer = decoder.finish()
    except BadAnswer as bad:
        return bad.kind, bad.message, decoder.has_token, decoder.ended
    return answer, decoder.first_payload(), decoder.has_token, decoder.ended


def fed(taken: Capture, payload: PayloadKind, cuts: list[int]) -> SseDecoder:
    decoder = taken.format(payload).stream_decoder()
    edges = [0, *sorted(cuts), len(taken.body)]
    for start, stop in pairwise(edges):
        decoder.feed(taken.body[start:stop])
    return decoder


def test_there_are_captures_of_every_server_and_api() -> None:
    kinds = {(one.vendor, one.format_name, one.is_stream) for one in CAPTURES}
    assert len(kinds) == 2 * (2 + 3 + 2)
    assert len(WHOLE) > 60
    assert len(COUNTED_STREAMS) > 20


@pytest.mark.parametrize("payload", ["none", "token_ids", "text"])
@pytest.mark.parametrize("taken", WHOLE, ids=ids_of(WHOLE))
def test_a_whole_answer_gives_count_reason_and_payload(taken: Capture, payload: PayloadKind) -> None:
    assert taken.format(payload).decode(taken.body) == expected(read_slowly(taken), payload)


@pytest.mark.parametrize("payload", ["none", "token_ids", "text"])
@pytest.mark.parametrize("taken", COUNTED_STREAMS, ids=ids_of(COUNTED_STREAMS))
def test_a_stream_gives_count_reason_and_payload(taken: Capture, payload: PayloadKind) -> None:
    decoder = fed(taken, payload, [])
    assert decoder.has_token
    assert decoder.ended == read_slowly(taken).end_mark
    assert decoder.finish() == expected(read_slowly(taken), payload)


@pytest.mark.parametrize("taken", UNCOUNTED_STREAMS, ids=ids_of(UNCOUNTED_STREAMS))
def test_a_stream_without_usage_has_no_token_count(taken: Capture) -> None:
    decoder = fed(taken, "none", [])
    assert decoder.ended
    with pytest.raises(BadAnswer, match="include_usage") as caught:
        decoder.finish()
    assert caught.value.kind is FailureKind.NO_TOKEN_COUNT


@pytest.mark.parametrize("taken", GOOD_STREAMS, ids=ids_of(GOOD_STREAMS))
def test_the_first_token_is_seen_with_its_event(taken: Capture) -> None:
    """Chats open with an event that has only a role; nothing else precedes the first token."""
    first = 1 if taken.format_name == "chat" else 0
    decoder = taken.format().stream_decoder()
    for number, event in enumerate(taken.events):
        decoder.feed(event[:-1])
        assert decoder.has_token == (number > first)
        decoder.feed(event[-1:])
        assert decoder.has_token == (number >= first)


@pytest.mark.parametrize(
    ("vendor", "name", "ids"),
    [
        ("vllm", "ok_comp_stream_usage_token_ids", [326]),
        ("vllm", "ok_chat_stream_usage_token_ids", [104]),
        ("vllm", "vl_ok_image_stream_token_ids", [268]),
        ("sglang", "ok_comp_stream_usage_token_ids", [326]),
        ("sglang", "gen_ok_ids_stream", [326]),
        ("sglang", "gen_ok_text_stream", [5]),
    ],
)
def test_the_first_ids_are_a_prefix_of_all_ids(vendor: str, name: str, ids: list[int]) -> None:
    """TEST06's rule. Two of these tokens have no text of their own."""
    decoder = fed(capture(vendor, name), "token_ids", [])
    assert decoder.first_payload() == pack(ids)
    payload = decoder.finish().payload
    assert payload is not None
    assert payload.startswith(pack(ids))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("shut_sigterm_inflight_stream", FailureKind.ERROR_IN_ANSWER, "EngineCore encountered an issue"),
        ("shut_engine_sigkill_inflight_stream", FailureKind.ERROR_IN_ANSWER, "EngineCore encountered"),
        ("shut_worker_sigkill_inflight_stream", FailureKind.ERROR_IN_ANSWER, "EngineCore encountered"),
        ("shut_sigterm_chat_inflight_stream", FailureKind.NO_END_MARK, "without"),
        ("shut_api_sigkill_inflight_stream", FailureKind.NO_END_MARK, "without"),
    ],
)
def test_a_stream_of_a_dying_vllm_is_no_answer(name: str, kind: FailureKind, message: str) -> None:
    """Its tokens came with status 200, and three times out of five it even sends [DONE]."""
    taken = capture("vllm", name)
    decoder = fed(taken, "none", [])
    assert decoder.has_token
    assert (decoder.error is not None) == (kind is FailureKind.ERROR_IN_ANSWER)
    with pytest.raises(BadAnswer, match=message) as caught:
        decoder.finish()
    assert caught.value.kind is kind


def test_a_stream_of_a_dying_sglang_is_no_answer() -> None:
    decoder = fed(capture("sglang", "shut_scheduler_sigkill_inflight_stream"), "none", [])
    assert decoder.has_token
    with pytest.raises(BadAnswer) as caught:
        decoder.finish()
    assert caught.value.kind is FailureKind.NO_END_MARK


def test_a_refusal_within_a_stream_keeps_the_servers_words() -> None:
    """SGLang refuses a prompt that is too long with status 200 and one event."""
    decoder = fed(capture("sglang", "gen_err_too_long_stream"), "none", [])
    assert not decoder.has_token
    assert decoder.error is not None
    assert decoder.error.kind is FailureKind.ERROR_IN_ANSWER
    assert "longer than the model's context length" in decoder.error.message
    assert "code 400" in decoder.error.message


@pytest.mark.parametrize("taken", BATCHES, ids=ids_of(BATCHES))
def test_several_answers_for_one_prompt_are_malformed(taken: Capture) -> None:
    with pytest.raises(BadAnswer) as caught:
        taken.format().decode(taken.body)
    assert caught.value.kind is FailureKind.MALFORMED


@pytest.mark.parametrize("payload", ["none", "token_ids", "text"])
@pytest.mark.parametrize("taken", STREAMS, ids=ids_of(STREAMS))
def test_bytes_one_at_a_time_read_the_same(taken: Capture, payload: PayloadKind) -> None:
    together = outcome(fed(taken, payload, []))
    cuts = list(range(1, min(len(taken.body), 6000)))
    assert outcome(fed(taken, payload, cuts)) == together


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_split_reads_the_same(data: st.DataObject) -> None:
    taken = data.draw(st.sampled_from(STREAMS))
    payload: PayloadKind = data.draw(st.sampled_from(["none", "token_ids", "text"]))
    cuts = data.draw(st.lists(st.integers(0, len(taken.body)), max_size=12))
    assert outcome(fed(taken, payload, cuts)) == outcome(fed(taken, payload, []))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_stream_cut_anywhere_is_never_a_different_answer(data: st.DataObject) -> None:
    taken = data.draw(st.sampled_from(COUNTED_STREAMS))
    end = data.draw(st.integers(0, len(taken.body)))
    decoder = taken.format("none").stream_decoder()
    decoder.feed(taken.body[:end])
    try:
        answer = decoder.finish()
    except BadAnswer:
        return
    assert decoder.has_token
    assert answer == expected(read_slowly(taken), "none")
