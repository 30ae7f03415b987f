"""TLS: certificates and names are verified, whatever the failure is it has a name."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
import trustme
from transport_peers import Peer, Server, Sink, Words, always, run, whole

from lbrun.attempt import AttemptFailure, AttemptResult, FailureKind
from lbrun.errors import ConfigError
from lbrun.transport import InlineWorker, Timeouts, make_endpoint, make_ssl_context


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return make_ssl_context(str(path))


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def attempt(
    client: ssl.SSLContext,
    server: ssl.SSLContext | None,
    *,
    script: object = None,
    host: str = "127.0.0.1",
    n: int = 1,
    plain_loop: bool = False,
    timeouts: Timeouts | None = None,
) -> AttemptResult | AttemptFailure:
    """The outcome of the last of n attempts, one after the other."""

    async def main() -> AttemptResult | AttemptFailure:
        peer = Server(script or always(whole(5)))  # type: ignore[arg-type]
        await peer.start(server)
        endpoint = make_endpoint(f"https://{host}:{peer.port}", "/v1/words")
        sink = Sink()
        worker = InlineWorker([endpoint], [b"x" * 100_000], Words(), tls=client, timeouts=timeouts)
        worker.start(sink)
        for attempt_id in range(n):
            worker.submit(attempt_id, 0, 0)
            await sink.until(lambda i=attempt_id: i in sink.outcomes)
        await worker.close()
        await peer.stop()
        assert peer.n_connections <= 1
        return sink.outcomes[n - 1]

    return run(main(), plain_loop=plain_loop)


def tls_failure(*args: object, **kwargs: object) -> AttemptFailure:
    outcome = attempt(*args, **kwargs)  # type: ignore[arg-type]
    assert isinstance(outcome, AttemptFailure)
    assert not outcome.sent
    return outcome


@pytest.mark.parametrize("plain_loop", [False, True])
def test_trusted_server_is_asked_over_one_kept_connection(
    ca: trustme.CA, trusting: ssl.SSLContext, plain_loop: bool
) -> None:
    outcome = attempt(trusting, server_context(ca.issue_cert("127.0.0.1")), n=3, plain_loop=plain_loop)
    assert isinstance(outcome, AttemptResult)
    assert outcome.answer.n_tokens == 5


def test_certificate_of_another_host_is_refused(ca: trustme.CA, trusting: ssl.SSLContext) -> None:
    failure = tls_failure(trusting, server_context(ca.issue_cert("elsewhere.example")))
    assert failure.kind is FailureKind.TLS
    assert "not valid for '127.0.0.1'" in failure.message


def test_expired_certificate_is_refused(ca: trustme.CA, trusting: ssl.SSLContext) -> None:
    expired = ca.issue_cert(
        "127.0.0.1",
        not_after=datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        not_before=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    )
    failure = tls_failure(trusting, server_context(expired))
    assert failure.kind is FailureKind.TLS
    assert "expired" in failure.message


def test_certificate_of_an_unknown_authority_is_refused(trusting: ssl.SSLContext) -> None:
    failure = tls_failure(trusting, server_context(trustme.CA().issue_cert("127.0.0.1")))
    assert failure.kind is FailureKind.TLS
    assert "not trusted" in failure.message


def test_systems_authorities_do_not_trust_a_private_one(ca: trustme.CA) -> None:
    failure = tls_failure(make_ssl_context(), server_context(ca.issue_cert("127.0.0.1")))
    assert failure.kind is FailureKind.TLS


def test_server_without_tls_is_named(trusting: ssl.SSLContext) -> None:
    async def speaks_plainly(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    failure = tls_failure(trusting, None, script=speaks_plainly)
    assert failure.kind is FailureKind.TLS
    assert failure.message.startswith("no TLS with 127.0.0.1:")


def test_server_that_hangs_up_in_the_handshake_is_a_tls_failure(trusting: ssl.SSLContext) -> None:
    async def hangs_up(peer: Peer) -> None:
        await peer.reader.read(1)

    assert tls_failure(trusting, None, script=hangs_up).kind is FailureKind.TLS


def test_server_that_never_answers_the_handshake_times_out(trusting: ssl.SSLContext) -> None:
    failure = tls_failure(trusting, None, script=Peer.hang, timeouts=Timeouts(connect_s=0.1))
    assert failure.kind is FailureKind.CONNECT_TIMEOUT


def test_answer_cut_within_tls_is_cut(ca: trustme.CA, trusting: ssl.SSLContext) -> None:
    async def cuts(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{")

    outcome = attempt(trusting, server_context(ca.issue_cert("127.0.0.1")), script=cuts)
    assert isinstance(outcome, AttemptFailure)
    assert outcome.kind is FailureKind.CUT


def test_context_always_verifies() -> None:
    context = make_ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("content", [None, "not PEM"])
def test_unusable_authority_file_is_a_users_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="name a PEM file"):
        make_ssl_context(str(path))


def test_many_tls_connections_at_once(ca: trustme.CA, trusting: ssl.SSLContext) -> None:
    async def main() -> None:
        peer = Server(always(whole()))
        await peer.start(server_context(ca.issue_cert("127.0.0.1")))
        endpoint = make_endpoint(f"https://127.0.0.1:{peer.port}", "/v1/words")
        sink = Sink()
        worker = InlineWorker([endpoint], [b"{}"], Words(), tls=trusting)
        worker.start(sink)
        for attempt_id in range(100):
            worker.submit(attempt_id, 0, 0)
        await sink.until(lambda: len(sink.outcomes) == 100)
        assert all(isinstance(o, AttemptResult) for o in sink.outcomes.values())
        await worker.close()
        await peer.stop()
        await asyncio.sleep(0)

    run(main())
