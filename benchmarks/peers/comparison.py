"""Other clients in turn with lbrun: the same server, the same answers, long runs less short ones."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import BenchmarkError, Figure, median_figure
from benchmarks.peers.clients import CLIENTS, IN_FLIGHT, Client, Order
from benchmarks.program import wait
from benchmarks.server import Answers, Server, running

CHUNKS = 128
ANSWERS = (Answers(), Answers(CHUNKS))
TIMEOUT_S = 300.0
_LBRUN_SIZES = (20_000, 120_000), (1_000, 11_000)


def benchmarks(venvs: Sequence[Path]) -> list[tuple[str, Callable[[Bench], Iterator[Figure]]]]:
    """lbrun itself, then each client that is installed in one of the environments, by name.

    Raises BenchmarkError where none is.
    """
    found = [(client, program) for client in CLIENTS if (program := _find(client, venvs))]
    if not found:
        raise BenchmarkError("--peers: no client in --peer-venv; see benchmarks/peers/setup.py")
    return [
        ("lbrun beside peers", _own),
        *((client.name, partial(_theirs, client, program)) for client, program in found),
    ]


def _own(bench: Bench) -> Iterator[Figure]:
    """lbrun with as many in flight as the others, LoadGen Offline."""
    for answers in ANSWERS:
        streams = answers.chunks > 0
        overrides = (f"servers.max_in_flight={IN_FLIGHT}", f"scenario.stream={streams}")
        with running(answers) as server:
            costs = bench.lbrun.costs_us(server.urls, _LBRUN_SIZES[streams], bench.repeats, *overrides)
        yield _figure("lbrun", costs, answers, "with LoadGen, Offline, 64 in flight")


def _theirs(client: Client, program: Path, bench: Bench) -> Iterator[Figure]:
    prompts = bench.scratch / "prompts.jsonl"
    prompts.write_text((json.dumps({"text": "x" * 1000}) + "\n") * max(client.sizes))
    for answers in ANSWERS:
        bench.progress(f"{client.name}, {'streams' if answers.chunks else 'whole answers'}")
        with running(answers) as server:
            yield _client_figure(bench, client, program, server, answers, prompts)


def _client_figure(
    bench: Bench, client: Client, program: Path, server: Server, answers: Answers, prompts: Path
) -> Figure:
    short, long = client.sizes
    costs, start_s = [], []
    for _ in range(min(bench.repeats, client.repeats)):
        less, more = (
            _cpu_s(client, program, Order(server.urls[0], n, bool(answers.chunks), Path(folder), prompts))
            for n in (short, long)
            for folder in [tempfile.mkdtemp(dir=bench.scratch)]
        )
        cost_s = (more - less) / (long - short)
        costs.append(cost_s * 1e6)
        start_s.append(less - short * cost_s)
    note = f"{IN_FLIGHT} in flight, {short:,} and {long:,} requests; {min(start_s):.1f} s of CPU beside them"
    return _figure(client.name, costs, answers, note)


def _figure(name: str, costs_us: Sequence[float], answers: Answers, note: str) -> Figure:
    key = name.lower().replace(" ", "_")
    if not answers.chunks:
        return median_figure(f"peer_{key}_us", f"{name}, whole answers", costs_us, "us/request", note=note)
    per_chunks = [cost_us / answers.chunks / 10 for cost_us in costs_us]
    title = f"{name}, {CHUNKS}-chunk streams in a burst"
    return median_figure(f"peer_{key}_s_per_100k", title, per_chunks, "s/100k chunks", note=note)


def _cpu_s(client: Client, program: Path, order: Order) -> float:
    """CPU seconds of all of its processes. Raises BenchmarkError where a request did not succeed."""
    output = order.folder / "output.txt"
    # nothing of theirs may look for models or data elsewhere
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "TMPDIR": str(order.folder)}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [str(program), *client.arguments(order)],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=order.folder,
            env=environment,
        )
    killer = threading.Timer(TIMEOUT_S, process.kill)
    killer.start()
    try:
        used = wait(process)
    finally:
        killer.cancel()
    said = output.read_text(errors="replace")[-1500:]
    if process.returncode:
        raise BenchmarkError(f"{client.name} ended with status {process.returncode}:\n{said}")
    if client.n_done is None:
        return used.ru_utime + used.ru_stime
    try:
        n_done = client.n_done(order)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BenchmarkError(f"{client.name} left no report ({error!r}):\n{said}") from None
    if n_done != order.n:
        raise BenchmarkError(f"{client.name} completed {n_done:,} of {order.n:,} requests:\n{said}")
    return used.ru_utime + used.ru_stime


def _find(client: Client, venvs: Sequence[Path]) -> Path | None:
    """The client's program in the first environment that has it."""
    for venv in venvs:
        program = (venv / "bin" / client.program).absolute()  # not resolved: a venv is known by its link
        has_module = client.module is None or any(venv.glob(f"lib/python*/site-packages/{client.module}"))
        if program.exists() and has_module:
            return program
    return None
