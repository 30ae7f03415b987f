"""What the data plane alone costs: CPU of this process per request, and per 100,000 chunks of a stream.

    python benchmarks/transport.py [--seconds 3] [--json FILE] [--profile CASE]

The server is benchmarks/server.c, compiled with `cc`, in a process of its own on loopback. A case is measured
for some seconds once every connection has carried an answer, so that start-up is not in the figures. The
memory is what the process grew by, per attempt in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import gc
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import uvloop

from lbrun.attempt import AttemptFailure, AttemptResult
from lbrun.formats import FormatOptions, make_format
from lbrun.formats.api import RequestFormat
from lbrun.transport import InlineWorker, make_endpoint, raise_descriptor_limit

HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: %b\r\n%b\r\n\r\n"
)


HEADINGS = "{:30} {:>9} {:>11} {:>15} {:>14} {:>6} {:>8}".format(
    "case", "in flight", "requests/s", "CPU us/request", "s/100k chunks", "goal", "KB each"
)


@dataclass(frozen=True)
class Case:
    """chunks: 0 for whole answers. interval_us: 0 for all chunks in one write. goal: us a request, or s per
    100,000 chunks.
    """

    name: str
    in_flight: int
    chunks: int = 0
    interval_us: int = 0
    goal: float | None = None


CASES = (
    Case("whole answers", 64, goal=15),
    Case("whole answers", 1024, goal=15),
    Case("streams, burst", 64, chunks=128, goal=0.10),
    Case("streams, burst, 1,000 chunks", 64, chunks=1000, goal=0.10),
    Case("streams, paced", 256, chunks=128, interval_us=5_000, goal=1.0),
    Case("streams, paced", 10_000, chunks=16, interval_us=200_000, goal=1.0),
)


class Load:
    """An `AttemptSink` that sends an attempt for each that is completed."""

    def __init__(self, worker: InlineWorker, n_bodies: int) -> None:
        self.worker, self.n_bodies = worker, n_bodies
        self.n_completed = self.n_first_tokens = self.next_id = 0
        self.failure: AttemptFailure | None = None

    def send(self) -> None:
        attempt_id = self.next_id
        self.next_id = attempt_id + 1
        self.worker.submit(attempt_id, attempt_id % self.n_bodies, 0)

    def first_token(self, attempt_id: int, at_ns: int, payload: bytes | None) -> None:
        self.n_first_tokens += 1

    def completed(self, attempt_id: int, result: AttemptResult) -> None:
        self.n_completed += 1
        self.send()

    def failed(self, attempt_id: int, failure: AttemptFailure) -> None:
        self.failure = failure


def answer_segments(chunks: int) -> list[bytes]:
    """What vLLM says, with its framing: 400 bytes of JSON, or an SSE stream with usage at its end."""
    if not chunks:
        body = json.dumps(
            {
                "id": "cmpl-0123456789abcdef0123456789abcdef",
                "object": "text_completion",
                "created": 1700000000,
                "model": "meta-llama/Llama-3.1-8B-Instruct",
                "choices": [{"index": 0, "text": "word " * 20, "logprobs": None, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 128, "total_tokens": 256, "completion_tokens": 128},
            }
        ).encode()
        return [HEAD % (b"application/json", b"content-length: %d" % len(body)) + body]

    def event(data: str) -> bytes:
        text = f"data: {data}\n\n".encode()
        return b"%x\r\n%b\r\n" % (len(text), text)

    common = '"id":"cmpl-0123456789abcdef","object":"text_completion","created":1700000000,"model":"llama"'
    token = f'{{{common},"choices":[{{"index":0,"text":" word","logprobs":null,"finish_reason":%s}}]}}'
    usage = f'{{{common},"choices":[],"usage":{{"prompt_tokens":9,"completion_tokens":{chunks}}}}}'
    segments = [event(token % ("null" if i < chunks - 1 else '"length"')) for i in range(chunks)]
    segments[0] = HEAD % (b"text/event-stream; charset=utf-8", b"transfer-encoding: chunked") + segments[0]
    segments[-1] += event(usage) + event("[DONE]") + b"0\r\n\r\n"
    return segments


@contextlib.contextmanager
def running_server(program: Path, case: Case) -> Iterator[int]:
    """Start the server; yields its port."""
    with tempfile.NamedTemporaryFile() as file:
        for segment in answer_segments(case.chunks):
            file.write(struct.pack("<I", len(segment)) + segment)
        file.flush()
        command = [str(program), file.name, str(case.interval_us)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                yield int(process.stdout.readline())
            finally:
                process.kill()


def rss_kb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(
    case: Case, port: int, seconds: float, profile: cProfile.Profile | None
) -> dict[str, float]:
    """CPU and requests of a window in which the case runs undisturbed."""
    options = FormatOptions(model="llama", backend="vllm", stream=case.chunks > 0, prompt="text")
    request_format: RequestFormat = make_format("completions", options)
    bodies = [b'{"prompt":"' + b"x" * 1000 + b'"}'] * 1000
    endpoint = make_endpoint(f"http://127.0.0.1:{port}", request_format.path)
    worker = InlineWorker([endpoint], bodies, request_format)
    load = Load(worker, len(bodies))
    worker.start(load)
    gc.collect()
    gc.freeze()
    rss = rss_kb()
    for _ in range(case.in_flight):
        load.send()
    while load.n_completed < case.in_flight and load.failure is None:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    rss = rss_kb() - rss
    stream_s = case.interval_us * case.chunks / 1e6
    seconds = max(seconds, 2 * stream_s)
    if profile is not None:
        profile.enable()
    n, cpu, wall = load.n_completed, cpu_s(), time.monotonic()
    await asyncio.sleep(seconds)
    n, cpu, wall = load.n_completed - n, cpu_s() - cpu, time.monotonic() - wall
    if profile is not None:
        profile.disable()
    await worker.close()
    if load.failure is not None:
        raise SystemExit(f"{case.name}: {load.failure}")
    return {"requests": n, "per_s": n / wall, "cpu_us": cpu / n * 1e6, "kb_each": rss / case.in_flight}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--profile", type=int, metavar="CASE", help="only this case (from 0), under cProfile")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "server"
        subprocess.run(["cc", "-O2", "-o", program, Path(__file__).with_name("server.c")], check=True)
        print(f"Python {sys.version.split()[0]}, uvloop {version('uvloop')}")
        print(HEADINGS)
        for index, case in enumerate(CASES):
            if arguments.profile is not None and index != arguments.profile:
                continue
            profile = cProfile.Profile() if arguments.profile is not None else None
            with (
                running_server(program, case) as port,
                asyncio.Runner(loop_factory=uvloop.new_event_loop) as r,
            ):
                figures = r.run(measure(case, port, arguments.seconds, profile))
            per_chunks = figures["cpu_us"] / case.chunks / 10 if case.chunks else None
            results.append({"case": case.name, "in_flight": case.in_flight, "goal": case.goal} | figures)
            if per_chunks is not None:
                results[-1]["s_per_100k_chunks"] = per_chunks
            shown = "" if per_chunks is None else f"{per_chunks:.3f}"
            print(
                f"{case.name:30} {case.in_flight:9,} {figures['per_s']:11,.0f} {figures['cpu_us']:15.1f} "
                f"{shown:>14} {case.goal:6g} {figures['kb_each']:8.1f}"
            )
            if profile is not None:
                profile.print_stats("tottime")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
