"""What worker processes share: bodies, the table of beats, and what they are told at their start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workers_bench import descriptors, options, setup

from lbrun.transport import Limits
from lbrun.workers.beats import Beats
from lbrun.workers.bodies import SharedBodies
from lbrun.workers.setup import Launch, load_launch, store_launch


def read_elsewhere(bodies: SharedBodies, expression: str) -> str:
    """What another process makes of the bodies b."""
    code = f"""
import sys
from lbrun.workers.bodies import SharedBodies
b = SharedBodies(*map(int, sys.argv[1:]))
print({expression})
"""
    command = [sys.executable, "-c", code, *map(str, bodies.fds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    answer = subprocess.run(
        command, pass_fds=bodies.fds, env=environment, check=True, capture_output=True, text=True
    )
    return answer.stdout.strip()


# ---- bodies


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_bodies_are_kept_as_they_are(stored: list[bytes]) -> None:
    bodies = SharedBodies.store(iter(stored))
    assert [bytes(body) for body in bodies] == stored
    assert (len(bodies), bodies.n_bytes) == (len(stored), sum(map(len, stored)))
    assert [bytes(body) for body in bodies[1:-1]] == stored[1:-1]
    assert [bytes(bodies[i - len(stored)]) for i in range(len(stored))] == stored
    for beyond in (len(stored), -len(stored) - 1):
        with pytest.raises(IndexError):
            bodies[beyond]
    bodies.close()


def test_bodies_larger_than_a_copy_and_many_small_ones_are_kept() -> None:
    stored = [b"a" * 3_000_000, b"", *(b"%d" % i for i in range(50_000)), b"z" * 2_000_000]
    bodies = SharedBodies.store(stored)
    assert all(bytes(body) == was for body, was in zip(bodies, stored, strict=True))
    bodies.close()


def test_nothing_but_empty_bodies_can_be_shared() -> None:
    bodies = SharedBodies.store([b"", b""])
    assert [bytes(body) for body in bodies] == [b"", b""]
    assert read_elsewhere(bodies, "[bytes(body) for body in b]") == "[b'', b'']"
    bodies.close()


def test_another_process_reads_the_same_bodies() -> None:
    stored = [b"%d" % i * i for i in range(500)]
    bodies = SharedBodies.store(stored)
    assert read_elsewhere(bodies, "all(bytes(x) == b'%d' % i * i for i, x in enumerate(b)), len(b)") == (
        "True 500"
    )
    bodies.close()


def test_bodies_can_only_be_read() -> None:
    bodies = SharedBodies.store([b"abc"])
    with pytest.raises(TypeError):
        bodies[0][0] = 1
    bodies.close()


def test_a_body_in_use_survives_the_close() -> None:
    bodies = SharedBodies.store([b"abc", b"def"])
    in_use = bodies[1]
    bodies.close()
    assert bytes(in_use) == b"def"


def test_a_body_that_cannot_be_made_leaves_no_descriptor() -> None:
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise ValueError("row 1 has no prompt")

    before = descriptors()
    with pytest.raises(ValueError, match="row 1"):
        SharedBodies.store(broken())
    assert descriptors() == before


# ---- beats


def test_the_last_byte_is_the_latest_of_all_workers() -> None:
    beats = Beats(2, 3)
    theirs = Beats(2, 3, os.dup(beats.fd))
    beats.beat(0, 100, [10, 50, 0])
    theirs.beat(1, 200, [20, 40, 0])
    assert [beats.last_byte_ns(server) for server in range(3)] == [20, 50, 0]
    assert [beats.last_beat_ns(worker) for worker in range(2)] == [100, 200]
    theirs.close()
    beats.close()


def test_a_worker_that_is_new_does_not_take_a_servers_last_byte_back() -> None:
    beats = Beats(1, 2)
    beats.beat(0, 100, [10, 0])
    beats.beat(0, 300, [0, 0])
    assert (beats.last_beat_ns(0), beats.last_byte_ns(0), beats.last_byte_ns(1)) == (300, 10, 0)
    beats.close()


# ---- the launch


def launch(
    n_workers: int, n_servers: int = 1, cpus: tuple[int, ...] = (), limits: Limits | None = None
) -> Launch:
    urls = [f"http://127.0.0.1:{8000 + i}" for i in range(n_servers)]
    return Launch(setup(urls, options(), limits=limits), n_workers, cpus, os.getpid(), 5, (6, 7))


def test_a_launch_is_read_by_each_process_as_it_was_stored() -> None:
    """However large the pool: nothing waits for a process that has not started up yet."""
    stored = launch(2, n_servers=5_000)
    fd = store_launch(stored)
    again = os.dup(fd)
    assert load_launch(fd) == stored
    assert load_launch(again) == stored


def test_only_a_launch_is_taken_for_one() -> None:
    fd = os.memfd_create("other")
    os.write(fd, b"\x80\x04N.")  # None, pickled
    with pytest.raises(TypeError, match="NoneType"):
        load_launch(fd)


def test_limits_on_connections_being_made_hold_for_all_workers_together() -> None:
    limits = Limits(max_connecting=100, max_connecting_per_server=3, max_body_bytes=17)
    share = launch(4, limits=limits).limits
    assert (share.max_connecting, share.max_connecting_per_server, share.max_body_bytes) == (25, 1, 17)


def test_processors_are_given_out_in_turn() -> None:
    assert [launch(3, cpus=(4, 9)).cpu(index) for index in range(3)] == [4, 9, 4]
    assert launch(3).cpu(0) is None
