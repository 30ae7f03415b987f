"""The server that everything is measured against: benchmarks/server.c, compiled with `cc`.

    python -m benchmarks.server [--chunks 128] [--interval-us 5000] [--phases 20] [--ports 3] [--chat]

runs one until it is interrupted, to measure another client by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import BenchmarkError

HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: %b\r\n%b\r\n\r\n"
)
MODEL = "bench"
"""The one model that the server lists."""
SOURCE = Path(__file__).with_name("server.c")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the server says. chunks: of a stream, 0 for whole answers.

    interval_us: between two chunks, each then in a packet of its own; 0: the whole answer in one write.
    phases: 1: the chunks of all open streams are sent at the same moments; more: as their requests came.
    chat: as of /v1/chat/completions.
    """

    chunks: int = 0
    interval_us: int = 0
    phases: int = 1
    chat: bool = False

    def segments(self) -> list[bytes]:
        """What vLLM says, with its framing: 400 bytes of JSON, or an SSE stream with usage at its end."""
        if not self.chunks:
            body = json.dumps(self._document("word " * 20, "stop", 128)).encode()
            return [HEAD % (b"application/json", b"content-length: %d" % len(body)) + body]
        reasons = [None] * (self.chunks - 1) + ["length"]
        segments = [_event(self._document(" word", reason)) for reason in reasons]
        segments[0] = (
            HEAD % (b"text/event-stream; charset=utf-8", b"transfer-encoding: chunked") + segments[0]
        )
        usage = {**self._document("", None, self.chunks), "choices": []}
        segments[-1] += _event(usage) + _event("[DONE]") + b"0\r\n\r\n"
        return segments

    def _document(self, text: str, finish_reason: str | None, n_tokens: int = 0) -> dict[str, object]:
        """An answer, or an event. n_tokens: 0 for no usage."""
        said: dict[str, object] = {"text": text}
        if self.chat:
            said = {"delta" if self.chunks else "message": {"role": "assistant", "content": text}}
        kind = "chat.completion" + ".chunk" * (self.chunks > 0) if self.chat else "text_completion"
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        usage = {"prompt_tokens": 9, "total_tokens": 9 + n_tokens, "completion_tokens": n_tokens}
        return {
            "id": "cmpl-0123456789abcdef0123456789abcdef",
            "object": kind,
            "created": 1700000000,
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "choices": [choice],
            **({"usage": usage} if n_tokens else {}),
        }


def _event(data: dict[str, object] | str) -> bytes:
    said = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    text = f"data: {said}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(text), text)


@functools.cache
def compiled() -> Path:
    """The server's program, compiled once a process. Raises BenchmarkError without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchmarkError("the benchmarks' server is written in C: install a compiler (cc)")
    folder = tempfile.TemporaryDirectory(prefix="lbrun-bench-server-")
    _folders.append(folder)
    program = Path(folder.name) / "server"
    command = [compiler, "-O2", "-Wall", "-o", str(program), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)}:\n{done.stderr}")
    return program


_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. ports: those it listens on, each as a server of its own to the client."""

    ports: tuple[int, ...]

    @property
    def urls(self) -> list[str]:
        """Base URLs, in the order of the ports."""
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def stats(self) -> dict[str, int]:
        """``posts``: requests seen; ``peak_open``: most paced streams that were open at one time."""
        with urllib.request.urlopen(f"{self.urls[0]}/stats", timeout=10) as answer:
            stats: dict[str, int] = json.load(answer)
            return stats


@contextlib.contextmanager
def running(answers: Answers, n_ports: int = 1) -> Iterator[Server]:
    """Start a server, and end it."""
    with tempfile.NamedTemporaryFile() as file:
        for segment in answers.segments():
            file.write(struct.pack("<I", len(segment)) + segment)
        file.flush()
        numbers = (answers.interval_us, n_ports, answers.phases)
        command = [str(compiled()), file.name, *(str(number) for number in numbers)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                ports = tuple(int(word) for word in process.stdout.readline().split())
                if len(ports) != n_ports:
                    raise BenchmarkError("the benchmarks' server did not start")
                yield Server(ports)
            finally:
                process.kill()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chunks", type=int, default=0, help="of a stream; 0: whole answers")
    parser.add_argument("--interval-us", type=int, default=0, help="between chunks; 0: all in one write")
    parser.add_argument("--phases", type=int, default=1, help="1: all streams in step")
    parser.add_argument("--ports", type=int, default=1, help="so many servers")
    parser.add_argument("--chat", action="store_true", help="answer as /v1/chat/completions does")
    given = parser.parse_args()
    answers = Answers(given.chunks, given.interval_us, given.phases, given.chat)
    with running(answers, given.ports) as server, contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write("\n".join(server.urls) + "\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
