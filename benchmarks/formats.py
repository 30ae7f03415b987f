"""What reading answers costs: CPU microseconds a whole answer, and a token event in bursts of 128.

    python -m benchmarks.formats

Only ratios between the rows mean anything on another machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from lbrun.formats import FormatOptions, JsonFormat, make_format
from lbrun.formats.options import Backend, PayloadKind

BURST = 128
EVENTS = 100 * BURST


def cpu_us(work: Callable[[], object], per: int, repeats: int = 7) -> float:
    """Least CPU microseconds of `work`, which handles `per` items."""
    least = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        least = min(least, time.process_time() - start)
    return least / per * 1e6


def options(name: str, payload: PayloadKind, *, stream: bool) -> FormatOptions:
    backend: Backend = "sglang" if name == "sglang_generate" else "vllm"
    return FormatOptions(model="m", backend=backend, stream=stream, payload=payload)


def whole_answer(name: str, n_tokens: int, *, with_ids: bool) -> bytes:
    """An answer with the fields of a real one and five characters a token; /generate always has ids."""
    text = "word " * n_tokens
    ids = list(range(1000, 1000 + n_tokens)) if with_ids or name == "sglang_generate" else None
    usage = {"prompt_tokens": 780, "total_tokens": 780 + n_tokens, "completion_tokens": n_tokens}
    if name == "sglang_generate":
        meta = {"id": "0" * 32, "finish_reason": {"type": "length", "length": n_tokens}} | usage
        return json.dumps({"text": text, "output_ids": ids, "meta_info": meta}).encode()
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "length", "token_ids": ids}
    choice |= {"message": {"role": "assistant", "content": text}} if name == "chat" else {"text": text}
    head = {"id": "cmpl-9ab058d1b0125b2d", "object": "text_completion", "created": 1795444024, "model": "m"}
    return json.dumps(head | {"choices": [choice], "usage": usage}, separators=(",", ":")).encode()


def token_event(name: str, number: int) -> bytes:
    """The event of one token."""
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": None, "token_ids": [number]}
    choice |= {"delta": {"content": " word"}} if name == "chat" else {"text": " word"}
    head = {"id": "cmpl-9ab058d1b0125b2d", "object": "text_completion", "created": 1795444024, "model": "m"}
    return b"data: " + json.dumps(head | {"choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"


def read_stream(made: JsonFormat, reads: list[bytes]) -> None:
    decoder = made.stream_decoder()
    for data in reads:
        decoder.feed(data)
    decoder.finish()


def stream_cost(name: str, payload: PayloadKind, per_read: int) -> float:
    """Microseconds an event of a stream of `EVENTS` tokens, `per_read` of them in each read."""
    events = [token_event(name, number) for number in range(EVENTS)]
    reads = [b"".join(events[start : start + per_read]) for start in range(0, EVENTS, per_read)]
    end = {"choices": [{"index": 0, "text": "", "delta": {}, "finish_reason": "length", "token_ids": []}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 780, "completion_tokens": EVENTS}}
    for last in (end, usage):
        reads.append(b"data: " + json.dumps(last).encode() + b"\n\n")
    reads.append(b"data: [DONE]\n\n")
    made = make_format(name, options(name, payload, stream=True))
    return cpu_us(lambda: read_stream(made, reads), EVENTS)


def whole_cost(name: str, payload: PayloadKind, n_tokens: int, count: int = 20_000) -> float:
    """Microseconds a whole answer."""
    body = whole_answer(name, n_tokens, with_ids=payload == "token_ids")
    decode = make_format(name, options(name, payload, stream=False)).decode

    def work() -> None:
        for _ in range(count):
            decode(body)

    return cpu_us(work, count)


def run(bench: Bench) -> Iterator[Figure]:
    """The shapes that the main scenarios meet; without a payload, as in a performance run."""
    bench.progress("reading answers")
    count = bench.n(20_000, 500)
    cost = whole_cost("completions", "none", 73, count)
    yield Figure(
        "format_whole_us", "Reading a whole answer of 73 tokens", cost, "us", note="the format alone"
    )
    for name in ("completions", "chat"):
        cost = stream_cost(name, "none", BURST)
        yield Figure(
            f"format_{name}_event_us", f"Reading an event of a stream in a burst, {name}", cost, "us"
        )
    cost = stream_cost("completions", "token_ids", BURST)
    yield Figure("format_ids_event_us", "Reading an event with its token ids", cost, "us")


def main() -> None:
    """Every format with every payload."""
    answers = Table("format", "payload", "tokens", "us an answer", title="whole answers")
    payloads: list[PayloadKind] = ["none", "token_ids", "text"]
    for name in ("completions", "chat", "sglang_generate"):
        for payload in payloads:
            for n_tokens in (10, 73):
                cost = whole_cost(name, payload, n_tokens)
                answers.add_row(name, payload, str(n_tokens), f"{cost:.2f}")
    streams = Table("format", "payload", "events a read", "us an event", title="streams")
    for name in ("completions", "chat"):
        for payload in payloads:
            for per_read in (BURST, 1):
                cost = stream_cost(name, payload, per_read)
                streams.add_row(name, payload, str(per_read), f"{cost:.2f}")
    console = Console()
    console.print(answers)
    console.print(streams)


if __name__ == "__main__":
    main()
