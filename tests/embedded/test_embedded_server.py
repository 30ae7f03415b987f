"""A served server as clients meet it: streams, queueing, connections, guided decoding, its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading

import pytest

IDS = {"prompt": [1, 2, 3, 4], "max_tokens": 8, "ignore_eos": True, "return_token_ids": True}
SLOW = {"ttft_base_ms": 60_000.0}


def tokens_of(events):
    return [t for e in events if e != "[DONE]" for c in e["choices"] for t in c["token_ids"] or []]


def test_a_stream_and_a_whole_answer_have_the_same_tokens(either):
    whole = either.post("/v1/completions", IDS).json["choices"][0]
    streamed = either.post("/v1/completions", {**IDS, "stream": True}).events
    assert tokens_of(streamed) == whole["token_ids"]
    assert "".join(e["choices"][0]["text"] for e in streamed if e != "[DONE]") == whole["text"]
    assert whole["finish_reason"] == "length"


def test_generate_and_completions_have_the_same_tokens(sglang):
    whole = sglang.post("/v1/completions", IDS).json["choices"][0]
    sampling = {"max_new_tokens": 8, "ignore_eos": True}
    own = sglang.post("/generate", {"input_ids": IDS["prompt"], "sampling_params": sampling}).json
    assert own["output_ids"] == whole["token_ids"]
    assert own["meta_info"]["completion_tokens"] == 8


def test_an_answer_that_ends_by_itself_says_stop_and_ends_with_the_end_token(serve):
    server = serve(backend="sglang", model="tiny", output_tokens_mean=3.0)
    answer = server.post("/generate", {"input_ids": [1, 2], "sampling_params": {"max_new_tokens": 500}}).json
    assert answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": 128009}
    assert answer["output_ids"][-1] == 128009


def test_unfinished_streams_say_nothing_of_a_finish_reason(either):
    events = either.post("/v1/completions", {**IDS, "stream": True}).events
    reasons = [e["choices"][0]["finish_reason"] for e in events if e != "[DONE]"]
    assert reasons == [None] * 7 + ["length"]


def test_coalescing_puts_all_due_tokens_into_one_event(serve):
    server = serve(coalesce=True, tpot_ms=0.0)
    events = server.post("/v1/completions", {**IDS, "stream": True}).events
    assert [len(e["choices"][0]["token_ids"]) for e in events if e != "[DONE]"] == [8]


@pytest.mark.parametrize("stream", [False, True])
def test_guided_decoding_answers_with_json_that_fits(either, stream):
    schema = {
        "type": "object",
        "properties": {"category": {"enum": ["Toys > Cars"]}, "brand": {"type": "string"}},
    }
    asked = {
        "messages": [{"role": "user", "content": "Which?"}],
        "max_tokens": 200,
        "stream": stream,
        "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": schema}},
    }
    received = either.post("/v1/chat/completions", asked)
    if stream:
        choices = [c for e in received.events if e != "[DONE]" for c in e["choices"]]
        content = "".join(c["delta"].get("content") or "" for c in choices)
    else:
        content = received.json["choices"][0]["message"]["content"]
    answer = json.loads(content)
    assert answer["category"] == "Toys > Cars"
    assert set(answer) == {"category", "brand"}


def test_tokenize_counts_what_completions_count(either):
    text = "The quick brown fox jumps over the lazy dog"
    counted = either.post("/tokenize", {"prompt": text}).json
    usage = either.post("/v1/completions", {"prompt": text, "max_tokens": 1}).json["usage"]
    assert counted["count"] == len(counted["tokens"]) == usage["prompt_tokens"]


def test_a_connection_serves_many_requests(vllm):
    body = json.dumps({**IDS, "max_tokens": 1}).encode()
    request = b"POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n"
    request += b"content-length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(vllm.address, 5) as connection, connection.makefile("rb") as answers:
        for _ in range(5):
            connection.sendall(request)
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            length = 0
            while (line := answers.readline()) != b"\r\n":
                assert not line.lower().startswith(b"connection: close")
                if line.startswith(b"content-length:"):
                    length = int(line.split()[1])
            assert json.loads(answers.read(length))["usage"]["completion_tokens"] == 1


def test_requests_beyond_the_slots_wait_in_line_and_a_client_that_leaves_makes_room(serve, eventually):
    server = serve(slots=2, **SLOW)
    request = b"POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n"
    body = json.dumps(IDS).encode()
    clients = [socket.create_connection(server.address, 5) for _ in range(5)]
    try:
        for client in clients:
            client.sendall(request + b"content-length: %d\r\n\r\n" % len(body) + body)

        def load():
            return (
                server.metric("vllm:num_requests_running"),
                server.metric("vllm:num_requests_waiting"),
            )

        eventually(lambda: load() == (2, 3))
        clients.pop(0).close()
        eventually(lambda: load() == (2, 2))
        assert server.metric("vllm:request_success_total", finished_reason="abort") == 1
    finally:
        for client in clients:
            client.close()
    eventually(lambda: load() == (0, 0))


def test_metrics_add_up(serve):
    server = serve(backend="sglang")
    for _ in range(3):
        server.post("/v1/completions", IDS)
    server.post("/v1/completions", {**IDS, "stream": True})
    assert server.metric("sglang:num_requests_total", is_streaming="false") == 3
    assert server.metric("sglang:num_requests_total", is_streaming="true") == 1
    assert server.metric("sglang:prompt_tokens_total") == 16
    assert server.metric("sglang:generation_tokens_total") == 32
    assert server.metric("sglang:time_to_first_token_seconds_count") == 4
    assert server.metric("sglang:num_running_reqs") == 0


def test_an_image_takes_tokens_by_its_size(vllm_vl, captured):
    request, real = captured("vllm", "vl_ok_image")
    with_image = vllm_vl.send_raw(request).json["usage"]["prompt_tokens"]
    body = json.loads(request.partition(b"\r\n\r\n")[2])
    del body["messages"][0]["content"][1]
    without = vllm_vl.post("/v1/chat/completions", body).json["usage"]["prompt_tokens"]
    assert with_image - without == 16  # 128 x 128 pixels, as the real server counted
    assert real.json["usage"]["prompt_tokens"] - 16 == 22


def test_images_are_refused_by_a_text_model(serve, captured):
    server = serve(model="tinyvl", multimodal=False)
    received = server.send_raw(captured("vllm", "vl_ok_image")[0])
    assert received.status == 400
    assert received.json["error"]["message"] == "tinyvl is not a multimodal model"


def test_images_are_not_fetched(vllm_vl):
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}
    answer = vllm_vl.post("/v1/chat/completions", {"messages": [{"role": "user", "content": [part]}]})
    assert answer.status == 500


def test_what_the_simulation_does_not_do_is_refused_by_name(either):
    assert b"n must be 1" in either.post("/v1/completions", {**IDS, "n": 2}).body
    batch = either.post("/v1/completions", {**IDS, "prompt": [[1], [2]]})
    assert batch.status == 400


@pytest.mark.parametrize("stream", [False, True])
def test_a_terminated_vllm_says_goodbye_to_open_requests(serve, captured, stream, eventually):
    server = serve(**SLOW)
    received = []
    client = threading.Thread(
        target=lambda: received.append(server.post("/v1/completions", {**IDS, "stream": stream}))
    )
    client.start()
    eventually(lambda: server.metric("vllm:num_requests_running") == 1)
    os.kill(pid_of(server), signal.SIGTERM)
    client.join(5)
    (got,) = received
    assert got.ended_well
    if stream:
        _, real = captured("vllm", "shut_sigterm_inflight_stream")
        assert got.events == real.events[-2:]
    else:
        _, real = captured("vllm", "shut_sigterm_inflight_nonstream")
        assert (got.status, got.body) == (500, real.body)


def test_a_terminated_sglang_says_nothing(serve, eventually):
    server = serve(backend="sglang", **SLOW)
    received = []
    client = threading.Thread(target=lambda: received.append(server.post("/v1/completions", IDS)))
    client.start()
    eventually(lambda: server.metric("sglang:num_running_reqs") == 1)
    os.kill(pid_of(server), signal.SIGTERM)
    client.join(5)
    assert received[0].raw == b""


def pid_of(server):
    import psutil

    port = server.address[1]
    children = psutil.Process().children()
    return next(p.pid for p in children if any(c.laddr.port == port for c in p.net_connections()))
