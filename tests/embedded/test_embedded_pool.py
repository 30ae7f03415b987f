"""The pool's processes: ports, kills, restarts, and that nothing outlives the parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from lbrun.embedded.faults import parse_fault
from lbrun.embedded.pool import EmbeddedPool
from lbrun.embedded.settings import EmbeddedSettings, ServerSettings
from lbrun.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pool(tmp_path):
    pool = EmbeddedPool(EmbeddedSettings(count=2), tmp_path / "log")
    yield pool
    pool.stop()


def address(url):
    return urlsplit(url).hostname, urlsplit(url).port


def gone(pid):
    """The process has ended; one that nobody has waited for counts as ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_servers_answer_on_loopback_alone(pool, is_up, eventually):
    urls = pool.start()
    eventually(lambda: all(map(is_up, urls)))
    listening = [
        c.laddr
        for i in range(2)
        for c in psutil.Process(pool.pid(i)).net_connections()
        if c.status == psutil.CONN_LISTEN
    ]
    assert sorted(listening) == sorted(address(url) for url in urls)
    assert {host for host, _ in listening} == {"127.0.0.1"}


def test_a_ctrl_c_while_a_server_is_started_leaves_none_behind(pool, monkeypatch):
    launched = []

    class Launch(Future):
        def result(self, timeout=None):
            process = super().result(timeout)
            if len(launched) < 2:
                launched.append(process)
                if len(launched) == 2:
                    raise KeyboardInterrupt
            return process

    monkeypatch.setattr("concurrent.futures.thread._base.Future", Launch)
    with pytest.raises(KeyboardInterrupt):
        pool.start()
    assert len(launched) == 2
    assert all(process.returncode is not None for process in launched)


def test_a_killed_server_refuses_connections_and_keeps_its_port(pool, is_up, eventually):
    urls = pool.start()
    eventually(lambda: all(map(is_up, urls)))
    pool.kill(1)
    assert [pool.alive(i) for i in range(2)] == [True, False]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address(urls[1]), 1)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(address(urls[1]))
    assert is_up(urls[0])


def test_a_server_restarts_on_its_port(pool, is_up, eventually):
    urls = pool.start()
    eventually(lambda: all(map(is_up, urls)))
    before = pool.pid(0)
    pool.kill(0)
    pool.restart(0)
    eventually(lambda: is_up(urls[0]))
    assert pool.urls == urls
    assert pool.pid(0) != before
    pool.restart(0)  # also one that is alive
    eventually(lambda: is_up(urls[0]))


def test_a_stopped_server_goes_on_when_it_is_continued(pool, is_up, eventually):
    urls = pool.start()
    eventually(lambda: all(map(is_up, urls)))
    pool.kill(0, signal.SIGSTOP)
    eventually(lambda: psutil.Process(pool.pid(0)).status() == psutil.STATUS_STOPPED)
    assert pool.alive(0)
    pool.kill(0, signal.SIGCONT)
    eventually(lambda: is_up(urls[0]))


def test_stop_ends_all_servers_also_stopped_ones_and_may_be_called_again(pool, is_up, eventually):
    urls = pool.start()
    eventually(lambda: all(map(is_up, urls)))
    pids = [pool.pid(0), pool.pid(1)]
    pool.kill(1, signal.SIGSTOP)
    pool.stop()
    assert all(map(gone, pids))
    pool.stop()
    with socket.socket() as other:
        other.bind(address(urls[0]))


def test_servers_end_quietly(pool, is_up, eventually, tmp_path):
    urls = pool.start()
    eventually(lambda: all(map(is_up, urls)))
    pool.kill(0, signal.SIGTERM)
    eventually(lambda: not pool.alive(0))
    pool.stop()
    assert [(tmp_path / "log" / f"embedded-{i}.log").read_text() for i in range(2)] == ["", ""]


def test_servers_are_out_of_reach_of_the_terminals_ctrl_c(pool):
    pool.start()
    assert all(os.getsid(pool.pid(i)) == pool.pid(i) for i in range(2))


def test_a_pool_starts_once(pool):
    pool.start()
    with pytest.raises(RuntimeError):
        pool.start()


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_servers_do_not_outlive_a_parent_that_is_killed(tmp_path, is_up, eventually, stopped):
    parent = start_parent(tmp_path, "print(*p.urls, flush=True); time.sleep(100)")
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    urls = parent.stdout.readline().split()
    eventually(lambda: all(map(is_up, urls)))
    if stopped:
        os.kill(pids[0], signal.SIGSTOP)
    parent.kill()
    parent.communicate()
    eventually(lambda: all(map(gone, pids)))


def test_servers_do_not_outlive_a_parent_whose_forked_child_lives_on(tmp_path, is_up, eventually):
    """The child inherits the parent's end of the pipes, so they never end: the kernel's signal does it."""
    parent = start_parent(
        tmp_path, "print(*p.urls); f = os.fork(); f and print(f, flush=True); time.sleep(100)"
    )
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    urls = parent.stdout.readline().split()
    forked = int(parent.stdout.readline())
    try:
        eventually(lambda: all(map(is_up, urls)))
        parent.kill()
        parent.wait()
        eventually(lambda: all(map(gone, pids)))
    finally:
        os.kill(forked, signal.SIGKILL)
        parent.communicate()


def test_servers_outlive_the_thread_that_started_the_pool(pool, is_up, eventually):
    """The kernel's signal comes with the end of a thread; the pool must not depend on its caller's."""
    ready = threading.Event()
    starter = threading.Thread(target=lambda: (pool.start(), ready.wait(20)))
    starter.start()
    try:
        eventually(lambda: len(pool.urls) == 2 and all(map(is_up, pool.urls)))
    finally:
        ready.set()
        starter.join()
    eventually(lambda: not Path(f"/proc/self/task/{starter.native_id}").exists())
    assert all(map(is_up, pool.urls))


def start_parent(tmp_path, then):
    script = f"""
        import os, pathlib, time
        from lbrun.embedded.pool import EmbeddedPool
        from lbrun.embedded.settings import EmbeddedSettings
        p = EmbeddedPool(EmbeddedSettings(count=2), pathlib.Path({str(tmp_path)!r}))
        p.start()
        print(p.pid(0), p.pid(1), flush=True)
        {then}
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


# settings


def test_each_server_gets_its_speed_and_faults():
    faults = (parse_fault("2:status_500*0.5"), parse_fault("0:hang_in_body"))
    settings = EmbeddedSettings(count=3, speeds=(0.5,), faults=faults, slots=7, model="m")
    servers = [settings.server(i) for i in range(3)]
    assert [s.speed for s in servers] == [0.5, 1.0, 1.0]
    assert [s.faults for s in servers] == [(faults[1],), (), (faults[0],)]
    assert {(s.slots, s.model) for s in servers} == {(7, "m")}


def test_all_problems_of_settings_are_told_together():
    with pytest.raises(ConfigError) as caught:
        EmbeddedSettings(
            count=2, speeds=(1.0, 0.0), backend="tgi", slots=0, faults=(parse_fault("2:status_500"),)
        )
    assert [p.split(":")[0] for p in caught.value.problems] == ["backend", "slots", "speeds[1]", "faults[0]"]


def test_the_command_line_carries_all_settings():
    from lbrun.embedded.__main__ import parse

    settings = ServerSettings(
        backend="sglang",
        model="-odd name",
        slots=3,
        jitter=0.25,
        speed=0.1,
        eos_token_id=5,
        multimodal=False,
        coalesce=True,
        faults=(parse_fault("status_429=Wed, 21 Oct 2026 07:28:00 GMT@1+2.5*0.5"),),
    )
    assert parse(settings.to_arguments()).settings == settings
