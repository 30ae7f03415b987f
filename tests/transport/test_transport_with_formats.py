"""The transport with the real request formats and an ordinary HTTP server; and its public names."""

from __future__ import annotations

import json

import pytest
from pytest_httpserver import HTTPServer
from transport_peers import Sink, run
from werkzeug import Request, Response

import lbrun.transport
from lbrun.attempt import AttemptFailure, AttemptResult, FailureKind
from lbrun.datasets.api import Sample
from lbrun.formats import FormatOptions, make_format
from lbrun.transport import InlineWorker, make_endpoint


def ask(server: HTTPServer, *, stream: bool, n: int = 3) -> Sink:
    options = FormatOptions(model="tiny", backend="vllm", stream=stream, payload="token_ids")
    request_format = make_format("completions", options)

    async def main() -> Sink:
        body = request_format.encode(Sample(0, token_ids=b"[1,2,3]"))
        endpoint = make_endpoint(server.url_for("/"), request_format.path, api_key="key-123")
        sink = Sink()
        worker = InlineWorker([endpoint], [body], request_format)
        worker.start(sink)
        for attempt_id in range(n):
            worker.submit(attempt_id, 0, 0)
            await sink.until(lambda i=attempt_id: i in sink.outcomes)
        await worker.close()
        return sink

    return run(main())


def _checks(request: Request) -> None:
    assert request.headers["Authorization"] == "Bearer key-123"
    assert request.headers["Content-Type"] == "application/json"
    assert request.get_json()["prompt"] == [1, 2, 3]


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_whole_completions_are_read(httpserver: HTTPServer) -> None:
    def handler(request: Request) -> Response:
        _checks(request)
        choice = {"index": 0, "text": "ab", "token_ids": [7, 8], "finish_reason": "stop"}
        answer = {"object": "text_completion", "choices": [choice], "usage": USAGE}
        return Response(json.dumps(answer), content_type="application/json")

    httpserver.expect_request("/v1/completions", method="POST").respond_with_handler(handler)
    sink = ask(httpserver, stream=False)
    httpserver.check_assertions()
    for outcome in sink.outcomes.values():
        assert isinstance(outcome, AttemptResult)
        assert outcome.answer.n_tokens == 2
        assert outcome.answer.payload == (7).to_bytes(4, "little") + (8).to_bytes(4, "little")


def test_streamed_completions_are_read(httpserver: HTTPServer) -> None:
    def events() -> list[bytes]:
        choices = [
            {"index": 0, "text": t, "token_ids": [i], "finish_reason": None} for i, t in enumerate("ab")
        ]
        choices[-1]["finish_reason"] = "length"
        said = [{"choices": [choice]} for choice in choices] + [{"choices": [], "usage": USAGE}]
        return [b"data: %b\n\n" % json.dumps(e).encode() for e in said] + [b"data: [DONE]\n\n"]

    def handler(request: Request) -> Response:
        _checks(request)
        return Response(events(), content_type="text/event-stream")

    httpserver.expect_request("/v1/completions", method="POST").respond_with_handler(handler)
    sink = ask(httpserver, stream=True)
    httpserver.check_assertions()
    for attempt_id, outcome in sink.outcomes.items():
        assert isinstance(outcome, AttemptResult)
        assert outcome.answer.n_tokens == 2
        assert outcome.first_token_ns == sink.tokens[attempt_id] > 0


def test_error_of_the_server_is_quoted(httpserver: HTTPServer) -> None:
    error = {"error": {"message": "The model `tiny` does not exist.", "code": 404}}
    httpserver.expect_request("/v1/completions").respond_with_json(error, status=404)
    for outcome in ask(httpserver, stream=False).outcomes.values():
        assert isinstance(outcome, AttemptFailure)
        assert outcome.kind is FailureKind.HTTP_4XX
        assert outcome.status == 404
        assert "The model `tiny` does not exist." in outcome.message


@pytest.mark.parametrize("stream", [False, True])
def test_error_under_status_200_is_no_answer(httpserver: HTTPServer, stream: bool) -> None:
    body = b'data: {"error": {"message": "boom", "code": 500}}\n\ndata: [DONE]\n\n'
    httpserver.expect_request("/v1/completions").respond_with_data(
        body if stream else body[6:].split(b"\n")[0]
    )
    for outcome in ask(httpserver, stream=stream).outcomes.values():
        assert isinstance(outcome, AttemptFailure)
        assert outcome.kind is FailureKind.ERROR_IN_ANSWER


def test_public_names() -> None:
    assert sorted(lbrun.transport.__all__) == [
        "Endpoint",
        "InlineWorker",
        "Limits",
        "Timeouts",
        "make_endpoint",
        "make_ssl_context",
        "raise_descriptor_limit",
    ]
