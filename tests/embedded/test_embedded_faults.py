"""Each fault, as a client sees it on the socket; and when faults strike."""

from __future__ import annotations

import json
import socket
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrun.embedded.faults import Fault, FaultKind, FaultSwitch, parse_fault

STREAM = {"prompt": [1, 2, 3], "max_tokens": 8, "ignore_eos": True, "stream": True}
WHOLE = {**STREAM, "stream": False}
PATH = "/v1/completions"


def has_end_mark(received):
    return b"[DONE]" in received.body


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
class TestBeforeTheAnswer:
    def test_hang_sends_nothing(self, either, body):
        either.have_faults("hang_before_headers")
        received = either.post(PATH, body, timeout_s=0.3)
        assert (received.raw, received.end) == (b"", "timeout")

    def test_reset_sends_nothing(self, either, body):
        either.have_faults("reset_before_headers")
        received = either.post(PATH, body)
        assert (received.raw, received.end) == (b"", "reset")

    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            ("status_400", 400),
            ("status_401", 401),
            ("status_422", 422),
            ("status_429", 429),
            ("status_500", 500),
            ("status_503_loading", 503),
            ("redirect", 307),
            ("health_ok_completions_fail", 500),
        ],
    )
    def test_statuses(self, either, body, fault, status):
        either.have_faults(fault)
        received = either.post(PATH, body)
        assert received.status == status
        assert received.ended_well

    def test_an_empty_body_has_status_200(self, either, body):
        either.have_faults("empty_body")
        received = either.post(PATH, body)
        assert (received.status, received.body) == (200, b"")
        assert received.ended_well

    def test_an_error_has_status_200(self, either, body):
        either.have_faults("error_in_200")
        received = either.post(PATH, body)
        assert received.status == 200
        assert received.ended_well
        assert b"EngineCore encountered an issue" in received.body
        assert b"choices" not in received.body


class TestInAWholeAnswer:
    def test_hang_sends_half(self, either):
        either.have_faults("hang_in_body")
        received = either.post(PATH, WHOLE, timeout_s=0.3)
        assert received.end == "timeout"
        assert 0 < len(received.body) < int(received.header("content-length"))

    def test_reset_comes_after_half(self, either):
        either.have_faults("reset_mid_stream")
        received = either.post(PATH, WHOLE)
        assert received.end == "reset"
        assert 0 < len(received.body) < int(received.header("content-length"))

    @pytest.mark.parametrize("fault", ["wrong_length", "eof_no_end_mark"])
    def test_length_promises_more_than_comes(self, either, fault):
        either.have_faults(fault)
        received = either.post(PATH, WHOLE)
        assert received.end == "eof"
        assert len(received.body) < int(received.header("content-length"))

    @pytest.mark.parametrize("fault", ["truncated_json", "malformed_sse"])
    def test_http_is_fine_and_json_is_not(self, either, fault):
        either.have_faults(fault)
        received = either.post(PATH, WHOLE)
        assert received.status == 200
        assert received.ended_well
        with pytest.raises(ValueError):
            json.loads(received.body)

    def test_a_dying_engine_gives_the_captured_500(self, vllm, captured):
        vllm.have_faults("error_event_then_done")
        _, real = captured("vllm", "shut_sigterm_inflight_nonstream")
        received = vllm.post(PATH, WHOLE)
        assert received.head[0] == real.head[0]
        assert received.body == real.body


class TestInAStream:
    """In all of them half of the tokens, 4 of 8, are out before the fault."""

    def test_hang_stops_after_some_tokens(self, either):
        either.have_faults("hang_in_body")
        received = either.post(PATH, STREAM, timeout_s=0.5)
        assert (received.end, len(received.chunks)) == ("timeout", 4)

    def test_reset_comes_after_some_tokens(self, either):
        either.have_faults("reset_mid_stream")
        received = either.post(PATH, STREAM)
        assert (received.end, len(received.chunks)) == ("reset", 4)

    def test_eof_without_end_mark_is_fine_http(self, either):
        either.have_faults("eof_no_end_mark")
        received = either.post(PATH, STREAM)
        assert received.ended_well
        assert not has_end_mark(received)
        assert all(e["choices"][0]["finish_reason"] is None for e in received.events)

    def test_a_chunk_is_shorter_than_announced(self, either):
        either.have_faults("wrong_length")
        received = either.post(PATH, STREAM)
        assert received.end == "eof"
        assert not received.ended_well

    def test_an_event_stops_in_the_middle_of_its_json(self, either):
        either.have_faults("truncated_json")
        received = either.post(PATH, STREAM)
        assert received.ended_well
        assert has_end_mark(received)
        with pytest.raises(ValueError):
            _ = received.events

    def test_lines_are_no_events(self, either):
        either.have_faults("malformed_sse")
        received = either.post(PATH, STREAM)
        assert received.ended_well
        assert b"\ndata {no colon}\n" in received.body

    def test_a_dying_vllm_ends_politely_as_captured(self, vllm, captured):
        vllm.have_faults("error_event_then_done")
        received = vllm.post(PATH, STREAM)
        _, real = captured("vllm", "shut_sigterm_inflight_stream")
        assert received.status == 200
        assert received.ended_well
        assert received.events[-2:] == real.events[-2:]
        assert received.chunks[-2:] == real.chunks[-2:], "to the byte"

    @pytest.mark.parametrize("fault", ["hang_in_body", "reset_mid_stream", "eof_no_end_mark"])
    def test_a_stream_of_one_token_is_spoiled_before_it(self, either, fault):
        either.have_faults(fault)
        received = either.post(PATH, {**STREAM, "max_tokens": 1}, timeout_s=0.3)
        assert received.status == 200
        assert received.chunks == []


class TestControlRoutes:
    def test_health_fails_while_completions_work(self, either):
        either.have_faults("health_fails")
        assert either.get("/health").status == 503
        assert either.post(PATH, WHOLE).status == 200

    def test_health_is_fine_while_completions_fail(self, either):
        either.have_faults("health_ok_completions_fail")
        assert either.get("/health").status == 200
        assert either.post(PATH, WHOLE).status == 500

    def test_a_loading_server_says_so_everywhere(self, either):
        either.have_faults("status_503_loading")
        assert either.get("/health").status == 503
        assert either.post(PATH, WHOLE).status == 503

    def test_another_model_is_listed(self, either):
        either.have_faults("wrong_model")
        assert [m["id"] for m in either.get("/v1/models").json["data"]] == ["another/model"]
        either.have_faults()
        assert [m["id"] for m in either.get("/v1/models").json["data"]] == ["tiny"]

    def test_vllm_then_refuses_the_right_model(self, vllm):
        vllm.have_faults("wrong_model")
        assert vllm.post(PATH, {**WHOLE, "model": "tiny"}).status == 404

    @pytest.mark.parametrize("value", ["7", "Wed, 21 Oct 2026 07:28:00 GMT", "soon"])
    def test_429_carries_the_retry_after_it_was_given(self, either, value):
        either.have_faults(f"status_429={value}")
        assert either.post(PATH, WHOLE).header("retry-after") == value

    def test_a_bad_fault_is_refused_and_changes_nothing(self, either):
        either.have_faults("status_500")
        answer = either.post("/__faults__", {"faults": ["no_such"]})
        assert answer.status == 400
        assert "no_such" in answer.json["error"]
        assert either.get("/__faults__").json == {"faults": ["status_500"]}


def test_a_share_of_requests_is_hit(vllm):
    vllm.have_faults("status_500*0.3")
    statuses = [vllm.post(PATH, {**WHOLE, "max_tokens": 1}).status for _ in range(100)]
    assert 15 <= statuses.count(500) <= 45
    assert statuses.count(200) == 100 - statuses.count(500)


def test_a_slow_server_takes_its_factor_longer(vllm):
    before = vllm.metric("vllm:e2e_request_latency_seconds_sum")
    vllm.post(PATH, WHOLE)
    normal_s = vllm.metric("vllm:e2e_request_latency_seconds_sum") - before
    vllm.have_faults("slow_factor=50")
    vllm.post(PATH, WHOLE)
    slow_s = vllm.metric("vllm:e2e_request_latency_seconds_sum") - before - normal_s
    assert slow_s >= (1e-3 + 7 * 0.2e-3) * 50 * 0.99  # by the model, not by this machine's clock


@pytest.mark.parametrize(
    ("backend", "path", "body"),
    [
        ("vllm", "/v1/completions", {"prompt": [1, 999_999]}),
        ("sglang", "/generate", {"input_ids": [1, 999_999]}),
    ],
)
def test_poison_ends_the_server_without_an_answer(serve, is_up, eventually, backend, path, body):
    server = serve(backend=backend, faults=(Fault(FaultKind.POISON),))
    assert server.post(path, body).raw == b""
    eventually(lambda: not is_up(server.url))
    with pytest.raises(ConnectionRefusedError):
        server.get("/health")


def test_without_the_fault_a_bad_id_is_refused(either):
    assert either.post(PATH, {"prompt": [1, 999_999]}).status == 400
    assert either.get("/health").status == 200


# answers that never end


ENDLESS = {
    "comments_forever=5": b": ping",
    "interim_forever=5": b"HTTP/1.1 102 Processing",
    "error_forever=5": b"HTTP/1.1 500",
    "tokens_forever=5": b'"token_ids"',
}


@pytest.mark.parametrize(("fault", "seen"), ENDLESS.items())
def test_an_endless_answer_goes_on_until_the_client_leaves(either, fault, seen):
    either.have_faults(fault)
    received = either.post(PATH, {**STREAM, "return_token_ids": True}, enough=1000)
    assert received.end == "enough"
    assert seen in received.raw


@pytest.mark.parametrize("fault", ENDLESS)
def test_an_endless_whole_answer_goes_on_as_well(either, fault):
    either.have_faults(fault)
    assert either.post(PATH, WHOLE, enough=300).end == "enough"


# answers that say something wrong


@pytest.mark.parametrize("count", [0, -1, 1000, 2**31, 2**63, 10**29])
def test_a_wrong_count_stands_in_the_answer(either, count):
    either.have_faults(f"wrong_count={count}")
    assert either.post(PATH, WHOLE).json["usage"]["completion_tokens"] == count
    include = {"stream_options": {"include_usage": True}}
    usages = [
        e["usage"]
        for e in either.post(PATH, {**STREAM, **include}).events
        if e != "[DONE]" and e.get("usage")
    ]
    assert usages[-1]["completion_tokens"] == count


def test_a_wrong_prompt_count_stands_in_the_answer(either):
    either.have_faults("wrong_prompt_count=-7")
    assert either.post(PATH, WHOLE).json["usage"]["prompt_tokens"] == -7


def test_wrong_and_extra_ids_stand_in_the_answer(either):
    either.have_faults("wrong_ids=999999")
    body = {**WHOLE, "return_token_ids": True}
    assert set(either.post(PATH, body).json["choices"][0]["token_ids"]) == {999999}
    either.have_faults("extra_tokens=5")
    answer = either.post(PATH, body).json
    assert len(answer["choices"][0]["token_ids"]) == 13
    assert answer["usage"]["completion_tokens"] == 13


def test_a_finish_reason_is_replaced(either):
    either.have_faults("finish_reason=odd")
    assert either.post(PATH, WHOLE).json["choices"][0]["finish_reason"] == "odd"


def test_the_answer_to_the_request_before_is_given(either):
    first = either.post(PATH, {**WHOLE, "prompt": [5, 6]}).json["choices"][0]["text"]
    either.have_faults("answer_of_another")
    either.post(PATH, {**WHOLE, "prompt": [5, 6]})
    assert either.post(PATH, {**WHOLE, "prompt": [7, 8]}).json["choices"][0]["text"] == first


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
def test_an_answer_comes_twice_on_its_connection(either, body):
    either.have_faults("answer_twice=1")
    received = either.post(PATH, body, timeout_s=0.3, connection="keep-alive")
    assert received.raw.count(b"HTTP/1.1 200") == 2


def test_a_status_carries_its_retry_after(either):
    either.have_faults("status=429;86400")
    received = either.post(PATH, WHOLE)
    assert (received.status, received.header("retry-after")) == (429, "86400")


def test_a_crash_comes_at_the_named_request(serve, is_up, eventually):
    server = serve(backend="vllm", faults=(Fault(FaultKind.CRASH, value="3"),))
    assert server.post(PATH, WHOLE).status == 200
    assert server.post(PATH, WHOLE).status == 200
    assert server.post(PATH, WHOLE).raw == b""
    eventually(lambda: not is_up(server.url))


# when faults strike

KINDS = tuple(FaultKind)
NEED_NUMBERS = {
    FaultKind.CRASH,
    FaultKind.WRONG_COUNT,
    FaultKind.WRONG_PROMPT_COUNT,
    FaultKind.WRONG_IDS,
    FaultKind.EXTRA_TOKENS,
}


@given(
    kind=st.sampled_from(KINDS),
    server=st.integers(0, 20),
    start_s=st.integers(0, 10**6).map(lambda ms: ms / 1000),
    duration_s=st.integers(1, 10**6).map(lambda ms: ms / 1000),
    share=st.integers(1, 1000).map(lambda s: s / 1000),
    value=st.sampled_from(["", "3", "12.5"]),
)
def test_the_notation_reads_back_as_it_was_written(kind, server, start_s, duration_s, share, value):
    if kind in NEED_NUMBERS:
        value = "3"
    elif kind is FaultKind.STATUS:
        value = "409;12.5"
    fault = Fault(kind, server, start_s, duration_s, share, value)
    assert parse_fault(str(fault)) == fault


@given(st.text().filter(lambda text: text.strip() not in FaultKind.__members__.values()))
def test_any_other_text_is_refused_with_a_reason(text):
    with pytest.raises(ValueError, match="fault"):
        parse_fault(text)


@pytest.mark.parametrize(
    "text",
    [
        "status_500*0",
        "status_500*2",
        "status_500+0",
        "slow_factor=x",
        "slow_factor=-1",
        "slow_body=x",
        "slow_headers=-1",
        "x",
        "",
    ],
)
def test_values_out_of_bounds_are_refused(text):
    with pytest.raises(ValueError, match="fault"):
        parse_fault(text)


def test_a_fault_strikes_from_its_start_for_its_duration():
    switch = FaultSwitch([parse_fault("status_500@5+10")], now_s=100.0)
    struck = [switch.strike({FaultKind.STATUS_500}, t) is not None for t in (100, 104.9, 105, 114.9, 115)]
    assert struck == [False, False, True, True, False]


@given(st.sampled_from([0.1, 0.3, 0.5, 0.9]))
def test_a_share_hits_that_share_of_requests(share):
    switch = FaultSwitch([Fault(FaultKind.STATUS_500, share=share)], 0.0)
    hits = 0
    for _ in range(2000):
        # as a server asks: a request that is hit is not asked about any more
        switch.strike({FaultKind.WRONG_MODEL}, 1.0)
        if switch.strike({FaultKind.STATUS_500}, 1.0) is not None:
            hits += 1
        else:
            switch.strike({FaultKind.HANG_IN_BODY}, 1.0)
            switch.strike({FaultKind.SLOW_BODY}, 1.0)
            switch.slowness(1.0)
    assert hits / 2000 == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", ["slow_headers=1", "slow_body=1", "split_packets=0.1"])
class TestGoodAnswersInOddPieces:
    def test_the_answer_is_the_right_one(self, either, body, fault):
        """Fields that differ from answer to answer, its id and times, are left out of the comparison."""
        right = either.post(PATH, body)
        either.have_faults(fault)
        received = either.post(PATH, body)
        assert received.status == 200
        assert received.ended_well
        assert said(received) == said(right)

    def test_the_server_counts_it_as_finished(self, vllm, body, fault):
        vllm.have_faults(fault)
        before = vllm.metric("vllm:request_success_total", finished_reason="length")
        vllm.post(PATH, body)
        assert vllm.metric("vllm:request_success_total", finished_reason="length") == before + 1


def said(received):
    if not received.chunked:
        return received.json["choices"][0]["text"]
    return [
        event["choices"][0]["text"] for event in received.events if event != "[DONE]" and event["choices"]
    ]


def test_a_character_is_cut_in_two_somewhere(vllm):
    """The answers hold words beyond ASCII, and the cuts wander over every place."""
    texts = "".join(vllm.post(PATH, {**WHOLE, "prompt": [i], "max_tokens": 300}).json["choices"][0]["text"]
                    for i in range(3))  # fmt: skip
    assert not texts.isascii()


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
class TestAnswersThatAreTooMuch:
    @pytest.mark.parametrize("fault", ["oversized_head", "oversized_line"])
    def test_no_end_comes(self, vllm, body, fault):
        vllm.have_faults(fault)
        with socket.create_connection(vllm.address, 5) as connection:
            content = json.dumps(body).encode()
            head = f"POST {PATH} HTTP/1.1\r\nhost: test\r\ncontent-length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode() + content)
            received = bytearray()
            while len(received) < 1 << 20:
                received += connection.recv(65_536)
        first, _, rest = bytes(received).partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not rest if fault == "oversized_head" else b"\n" not in rest
        assert vllm.get("/health").status == 200

    def test_a_small_body_is_compressed_and_huge(self, vllm, body):
        vllm.have_faults("compressed")
        received = vllm.post(PATH, body)
        assert received.header("content-encoding") == "gzip"
        assert len(received.body) < 1 << 20
        assert len(zlib.decompress(received.body, wbits=31)) == 64 << 20
