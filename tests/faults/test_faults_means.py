"""The means by which faults are made: limits, clocks, certificates, wires, and the watch over a soak."""

from __future__ import annotations

import datetime
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from lbrun.faults.harness import carry_out
from lbrun.faults.limits import wrapper
from lbrun.faults.scenario import Mode, Row, Scenario
from lbrun.faults.soak import Soak, Usage, not_flat
from lbrun.faults.stage import Stage
from lbrun.faults.tls_front import TlsFront
from lbrun.faults.wall_clock import JumpingClock, no_compiler
from lbrun.faults.wire import Network, no_namespaces


def test_a_command_runs_within_its_limits() -> None:
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    done = subprocess.run(
        [*wrapper(NOFILE=64), sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(64, 64)"
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] != 64


@pytest.mark.skipif(no_compiler() is not None, reason=str(no_compiler()))
def test_the_wall_clock_jumps_for_the_command_and_the_monotonic_one_does_not(tmp_path: Path) -> None:
    clock = JumpingClock(tmp_path)
    clock.jump(3600)
    code = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(clock.environment), capture_output=True, text=True, check=True
    )
    wall_s, date_s, monotonic_s = map(float, done.stdout.split())
    assert wall_s - time.time() == pytest.approx(3600, abs=30)
    assert date_s - time.time() == pytest.approx(3600, abs=30)
    assert monotonic_s == pytest.approx(time.monotonic(), abs=30)


# -- certificates


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that sends back what it gets, to one client after the other."""
    import threading

    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(4096):
                    connection.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


def say(port: int, authority: trustme.CA) -> bytes:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(b"hello")
        return secure.recv(100)


def server_context(authority: trustme.CA, *, expired: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    end = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1) if expired else None
    authority.issue_cert("127.0.0.1", not_after=end).configure_cert(context)
    return context


def test_a_tls_front_passes_bytes_on_and_can_change_its_certificate(echo: str) -> None:
    authority = trustme.CA()
    front = TlsFront(echo, server_context(authority))
    try:
        assert say(front.port, authority) == b"hello"
        port = front.port
        front.present(server_context(authority, expired=True))
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            say(front.port, authority)
        front.present(server_context(authority))
        assert front.port == port
        assert say(front.port, authority) == b"hello"
    finally:
        front.close()


# -- wires


@pytest.fixture
def network() -> Iterator[Network]:
    reason = no_namespaces()
    if reason is not None:
        pytest.skip(reason)
    made = Network(2)
    yield made
    made.close()


def connect(network: Network, server: socket.socket, timeout_s: float = 5) -> socket.socket:
    return network.client.call(lambda: socket.create_connection(server.getsockname(), timeout_s))


def test_a_wire_carries_delays_and_cuts(network: Network) -> None:
    with network.bind(0, 0) as far, network.bind(1, 0) as cut:
        far.listen()
        cut.listen()
        network.links[0].delay_s = 0.1
        began_s = time.monotonic()
        connect(network, far).close()
        assert time.monotonic() - began_s >= 0.2
        network.links[1].cut = True
        with pytest.raises(TimeoutError):
            connect(network, cut, 0.3)
        network.links[1].cut = False
        connect(network, cut).close()


def test_a_wire_forgets_the_connections_that_there_are(network: Network) -> None:
    with network.bind(0, 0) as server:
        server.listen()
        old = connect(network, server)
        of_old, _ = server.accept()
        network.links[0].forget()
        new = connect(network, server)
        of_new, _ = server.accept()
        with old, of_old, new, of_new:
            old.sendall(b"hello")
            new.sendall(b"hello")
            assert of_new.recv(5) == b"hello"
            of_old.settimeout(0.3)
            with pytest.raises(TimeoutError):
                of_old.recv(5)


def test_networks_stand_side_by_side(network: Network) -> None:
    Network(1).close()
    connected = network.bind(0, 0)
    with connected:
        connected.listen()
        connect(network, connected).close()


# -- soaks


def usage(rss_per_s: float = 0.0, descriptors_per_s: float = 0.0) -> list[Usage]:
    return [Usage(s, 100 + s * rss_per_s, 40 + int(s * descriptors_per_s)) for s in range(400)]


def test_flat_memory_and_descriptors_are_flat() -> None:
    assert not_flat(usage(), 1000) == []


def test_what_grows_is_found() -> None:
    assert "memory" in not_flat(usage(rss_per_s=0.5), 1000)[0]
    assert "descriptors" in not_flat(usage(descriptors_per_s=0.2), 1000)[0]
    assert "only" in not_flat(usage()[:3], 1000)[0]


def test_a_soak_is_described_by_quarters() -> None:
    lines = Soak(Row(scenario="soak", mode=Mode.SERVER), 10, usage(rss_per_s=1.0)).describe().splitlines()
    assert len(lines) == 4
    assert "149.5 MiB" in lines[0] or "150.0 MiB" in lines[0]


# -- the harness


def test_a_run_that_is_over_before_it_was_broken_is_judged_all_the_same() -> None:
    def act(stage: Stage) -> None:
        stage.start(slow=False)
        stage.until(lambda: False, "what never comes")

    row = carry_out(Scenario(name="x", about="x", act=act, samples=256), Mode.OFFLINE)
    assert (row.requests, row.verdict) == (256, "VALID")
    (problem,) = row.problems
    assert problem.startswith("lbrun ended (status 0) before: what never comes")


def test_a_scenario_that_is_given_up_ends_what_it_has_started() -> None:
    given_up = threading.Event()
    started: list[Stage] = []

    def act(stage: Stage) -> None:
        started.append(stage)
        stage.start()
        given_up.set()
        stage.until(lambda: False, "what never comes")

    row = carry_out(Scenario(name="x", about="x", act=act), Mode.OFFLINE, given_up=given_up)
    assert row.problems == ("given up",)
    (stage,) = started
    assert stage.has_ended
    assert stage.run.family() == []
