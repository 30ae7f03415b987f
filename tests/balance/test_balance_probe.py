"""Probes over real sockets: what a server's answer, or its silence, is taken for."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trustme
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from lbrun.balance import ProbeOutcome
from lbrun.balance.models import judge_models
from lbrun.balance.probe import Prober, ProbeResult, ProbeSettings

CAPTURES = Path(__file__).parent.parent / "captures"
Serve = Callable[[Callable[[str], bytes | None]], AbstractAsyncContextManager[str]]


def captured(name: str) -> bytes:
    return (CAPTURES / f"{name}.response.bin").read_bytes()


def body_of(name: str) -> bytes:
    return captured(name).partition(b"\r\n\r\n")[2]


async def probed(
    url: str, *, backend: str = "vllm", model: str = "tiny", with_model: bool = True, **options: object
) -> ProbeResult:
    settings = ProbeSettings(backend, model, **options)  # type: ignore[arg-type]
    async with Prober([url], settings) as prober:
        return await prober.probe(0, with_model=with_model)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# -- answers of real servers


@pytest.mark.parametrize(
    ("backend", "health", "models", "outcome"),
    [
        ("vllm", "vllm/ok_health", "vllm/ok_models", ProbeOutcome.OK),
        ("sglang", "sglang/ok_health", "sglang/ok_v1_models", ProbeOutcome.OK),
        ("openai", "transformers/ok_health", "transformers/ok_models", ProbeOutcome.OK),
        ("vllm", "transformers/ok_health", "transformers/ok_models", ProbeOutcome.ERROR),
        ("vllm", "vllm/shut_engine_sigkill_health_0", "vllm/ok_models", ProbeOutcome.LOADING),
        ("sglang", "sglang/shut_sigterm_health_0", "sglang/ok_v1_models", ProbeOutcome.LOADING),
    ],
)
def test_captured_answers_of_real_servers(
    serve_replies: Serve, backend: str, health: str, models: str, outcome: ProbeOutcome
) -> None:
    async def run() -> ProbeResult:
        async with serve_replies(lambda path: captured(health if path == "/health" else models)) as url:
            return await probed(url, backend=backend)

    assert asyncio.run(run()).outcome is outcome


def test_a_model_list_tells_the_context_length() -> None:
    verdict = judge_models(200, body_of("vllm/ok_models"), model="tiny", backend="vllm")
    assert verdict.info is not None
    assert (verdict.info.listed, verdict.info.max_model_len) == (("tiny",), 2048)


def test_a_wrong_model_is_named_with_the_key_to_set() -> None:
    verdict = judge_models(200, body_of("vllm/ok_models"), model="llama", backend="vllm")
    assert verdict.outcome is ProbeOutcome.WRONG_MODEL
    assert verdict.detail == (
        "lists 'tiny', not 'llama'; if that is the model, write 'servers.served_model=tiny'"
    )


def test_sglang_serves_any_name_and_that_is_noted() -> None:
    verdict = judge_models(200, body_of("sglang/ok_v1_models"), model="llama", backend="sglang")
    assert verdict.outcome is ProbeOutcome.OK
    assert verdict.info is not None
    assert verdict.info.note == "lists 'tiny' and serves any name, 'llama' as well"


@pytest.mark.parametrize(
    ("status", "body", "backend", "outcome"),
    [
        (200, b'{"data": []}', "vllm", ProbeOutcome.LOADING),
        (200, b'{"data": [{"id": "tiny", "max_model_len": "many"}]}', "vllm", ProbeOutcome.OK),
        (200, b'{"data": [{"id": 3}, "x", {"id": "tiny"}]}', "vllm", ProbeOutcome.OK),
        (200, b"not json", "vllm", ProbeOutcome.ERROR),
        (200, b"not json", "openai", ProbeOutcome.OK),
        (200, b"[" * 100_000, "vllm", ProbeOutcome.ERROR),
        (200, b"\xff\xfe", "openai", ProbeOutcome.OK),
        (404, b"", "openai", ProbeOutcome.OK),
        (404, b"", "vllm", ProbeOutcome.ERROR),
        (500, b"", "sglang", ProbeOutcome.ERROR),
        (503, b"", "openai", ProbeOutcome.LOADING),
        (401, b"", "openai", ProbeOutcome.ERROR),
        (403, b"", "vllm", ProbeOutcome.ERROR),
    ],
)
def test_model_lists_of_every_sort(status: int, body: bytes, backend: str, outcome: ProbeOutcome) -> None:
    assert judge_models(status, body, model="tiny", backend=backend).outcome is outcome


def test_a_vocabulary_size_is_taken_where_it_is_offered() -> None:
    for entry in (b'{"id": "tiny", "vocab_size": 99}', b'{"id": "tiny", "meta": {"n_vocab": 99}}'):
        verdict = judge_models(200, b'{"data": [' + entry + b"]}", model="tiny", backend="openai")
        assert verdict.info is not None
        assert verdict.info.vocab_size == 99


# -- health


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, ProbeOutcome.OK),
        (503, ProbeOutcome.LOADING),
        (500, ProbeOutcome.ERROR),
        (404, ProbeOutcome.ERROR),
        (302, ProbeOutcome.ERROR),
    ],
)
def test_the_status_of_the_health_path_decides(
    httpserver: HTTPServer, status: int, outcome: ProbeOutcome
) -> None:
    httpserver.expect_request("/health").respond_with_data("", status=status, headers={"Location": "/ok"})
    httpserver.expect_request("/ok").respond_with_data("")
    result = asyncio.run(probed(httpserver.url_for(""), with_model=False))
    assert result.outcome is outcome
    assert [request.path for request, _ in httpserver.log] == ["/health"]


@pytest.mark.parametrize("models_status", [200, 404, 500])
def test_an_openai_server_without_a_health_path_is_asked_for_its_models(
    httpserver: HTTPServer, models_status: int
) -> None:
    httpserver.expect_request("/health").respond_with_data("", status=404)
    httpserver.expect_request("/v1/models").respond_with_json(
        {"data": [{"id": "tiny"}]}, status=models_status
    )
    assert asyncio.run(probed(httpserver.url_for(""), backend="openai")).outcome is ProbeOutcome.OK


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/team"])
def test_paths_are_joined_to_the_base_url(httpserver: HTTPServer, suffix: str) -> None:
    prefix = "/team" if suffix == "/team" else ""
    httpserver.expect_request(f"{prefix}/ready").respond_with_data("")
    httpserver.expect_request(f"{prefix}/v1/models").respond_with_json({"data": [{"id": "tiny"}]})
    url = httpserver.url_for("").rstrip("/") + suffix
    assert asyncio.run(probed(url, health_path="/ready")).outcome is ProbeOutcome.OK


def test_a_server_that_quotes_the_key_it_was_sent_spreads_it_nowhere(httpserver: HTTPServer) -> None:
    listed = json.dumps({"data": [{"id": "m"}, {"id": "Bearer k-canary"}]})
    httpserver.expect_request("/health").respond_with_data("ok")
    httpserver.expect_request("/v1/models").respond_with_data(listed)
    url = httpserver.url_for("")

    async def main() -> ProbeResult:
        probing = ProbeSettings(
            "vllm", "m", api_key="k-canary", redact=lambda text: text.replace("k-canary", "***")
        )
        async with Prober([url], probing) as prober:
            return await prober.probe(0, with_model=True)

    result = asyncio.run(main())
    assert result.model is not None
    assert result.model.listed == ("m", "Bearer ***")


def test_headers_and_key_are_sent_and_the_environments_proxy_is_not_used(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    def answer(request: Request) -> Response:
        sent = (request.headers.get("Authorization"), request.headers.get("X-Team"))
        return Response(status=200 if sent == ("Bearer canary", "blue") else 401)

    httpserver.expect_request("/health").respond_with_handler(answer)
    result = asyncio.run(
        probed(httpserver.url_for(""), with_model=False, headers={"X-Team": "blue"}, api_key="canary")
    )
    assert result.outcome is ProbeOutcome.OK


def test_secrets_do_not_show_in_the_settings() -> None:
    assert "canary" not in repr(ProbeSettings("vllm", "m", headers={"X": "canary"}, api_key="canary"))


# -- no answer


def test_a_refused_connection() -> None:
    result = asyncio.run(probed(f"http://127.0.0.1:{free_port()}"))
    assert result == ProbeResult(ProbeOutcome.REFUSED, "connection refused")


def test_a_connection_that_is_closed_without_an_answer_means_nobody_is_there(serve_replies: Serve) -> None:
    async def run() -> ProbeResult:
        async with serve_replies(lambda path: b"") as url:
            return await probed(url)

    result = asyncio.run(run())
    assert result.outcome is ProbeOutcome.REFUSED
    assert result.detail.startswith("no answer to /health: ")


def test_a_hanging_server_and_a_trickling_one_time_out(serve_replies: Serve) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"  # and then nothing

    async def run(reply: bytes | None) -> ProbeResult:
        async with AsyncHang(reply) as url:
            return await probed(url, timeout_s=0.2)

    for reply in (None, head):
        result = asyncio.run(run(reply))
        assert result == ProbeResult(ProbeOutcome.TIMEOUT, "no answer to /health within 0.2 s")


class AsyncHang:
    """A server that sends the given bytes, if any, and then keeps the connection open."""

    def __init__(self, data: bytes | None) -> None:
        self._data = data

    async def __aenter__(self) -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._data is not None:
                writer.write(self._data)
            while await reader.read(1024):
                pass
            writer.close()

        self._server = await asyncio.start_server(handle, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


def test_the_time_in_which_this_process_was_held_up_is_not_the_servers(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/health").respond_with_data("")

    async def main() -> ProbeResult:
        async with Prober([httpserver.url_for("")], ProbeSettings("vllm", "m", timeout_s=0.3)) as prober:
            loop = asyncio.get_running_loop()
            for at_s in (0.0, 0.001, 0.002):
                loop.call_later(at_s, time.sleep, 0.25)  # several turns of the loop, each held up
            return await prober.check_health(0)

    assert asyncio.run(main()).outcome is ProbeOutcome.OK


def test_an_answer_that_is_no_http_is_an_error(serve_replies: Serve) -> None:
    async def run() -> ProbeResult:
        async with serve_replies(lambda path: b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as url:
            return await probed(url)

    assert asyncio.run(run()).outcome is ProbeOutcome.ERROR


def test_an_endless_model_list_is_cut_off(serve_replies: Serve) -> None:
    def reply(path: str) -> bytes:
        endless = b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 2_000_000
        return endless if path == "/v1/models" else captured("vllm/ok_health")

    async def run() -> ProbeResult:
        async with serve_replies(reply) as url:
            return await probed(url)

    assert asyncio.run(run()).outcome is ProbeOutcome.ERROR


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unresolved(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    result = asyncio.run(probed("http://nowhere.invalid:8000"))
    assert result == ProbeResult(ProbeOutcome.ERROR, "the name does not resolve: Name or service not known")


def test_without_descriptors_left_nobody_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_descriptor(*_: object, **__: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "create_connection", no_descriptor)
    result = asyncio.run(probed("http://127.0.0.1:1"))
    assert result == ProbeResult(ProbeOutcome.LOCAL, "this machine cannot connect: Too many open files")


def test_certificates_are_verified_and_a_ca_of_ones_own_is_accepted() -> None:
    ca = trustme.CA()
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(serving)
    wrong_host = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("elsewhere.example").configure_cert(wrong_host)

    async def run(served: ssl.SSLContext, trust: ssl.SSLContext | None) -> ProbeResult:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(captured("vllm/ok_health"))
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=served)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            return await probed(url, with_model=False, ssl_context=trust)
        finally:
            server.close()

    assert asyncio.run(run(serving, trusting)).outcome is ProbeOutcome.OK
    untrusted = asyncio.run(run(serving, None))
    assert untrusted.outcome is ProbeOutcome.ERROR
    assert untrusted.detail.startswith("TLS: ")
    mismatch = asyncio.run(run(wrong_host, trusting))
    assert mismatch.outcome is ProbeOutcome.ERROR
    assert mismatch.detail.startswith("TLS: ")
