"""How each other client is told to send N requests, and how it is seen that it did."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import tokenizer

HERE = Path(__file__).parent
IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class Order:
    """n requests to a server, IN_FLIGHT at a time. folder: to be filled. prompts: JSON lines with `text`."""

    url: str
    n: int
    streams: bool
    folder: Path
    prompts: Path


@dataclass(frozen=True, slots=True)
class Client:
    """A program that sends requests.

    program: its file in a virtual environment's ``bin``. module: what must be installed with it, where the
    program does not tell. sizes: requests of a short and of a long run, fewer where one is dear.
    arguments: its command line. n_done: how many requests it says have succeeded; None where its exit status
    tells. repeats: at most so many, for one that takes long.
    """

    name: str
    program: str
    sizes: tuple[int, int]
    arguments: Callable[[Order], list[str]]
    n_done: Callable[[Order], int] | None = None
    module: str | None = None
    repeats: int = 3


def _loop(name: str, sizes: tuple[int, int]) -> Client:
    """A plain loop over an HTTP client: benchmarks/peers/NAME_loop.py; it ends at the first bad answer."""

    def arguments(order: Order) -> list[str]:
        url = f"{order.url}/v1/completions"
        return [str(HERE / f"{name}_loop.py"), url, str(order.n), str(IN_FLIGHT), str(int(order.streams))]

    return Client(f"plain {name} loop", "python", sizes, arguments, module=name)


def _aiperf(order: Order) -> list[str]:
    """With the server's own token counts, so that it need not tokenize answers."""
    return [
        *("profile", "--model", "bench", "--url", order.url, "--endpoint-type", "completions"),
        *("--tokenizer", str(tokenizer.write(order.folder / "tokenizer")), "--use-server-token-count"),
        *("--input-file", str(order.prompts), "--custom-dataset-type", "single_turn"),
        *("--request-count", str(order.n), "--concurrency", str(IN_FLIGHT), "--ui", "none"),
        *("--no-server-metrics", "--no-gpu-telemetry", "--artifact-dir", str(order.folder / "out")),
        *(["--streaming"] if order.streams else []),
    ]


def _aiperf_done(order: Order) -> int:
    profile = json.loads((order.folder / "out" / "profile_export_aiperf.json").read_bytes())
    return int(profile["request_count"]["avg"])


def _guidellm(order: Order) -> list[str]:
    backend = f"kind=openai_http,target={order.url},model=bench,request_format=/v1/completions"
    return [
        *("run", "--backend", f"{backend},stream={str(order.streams).lower()}"),
        *("--profile", f"kind=concurrent,streams={IN_FLIGHT}"),
        *("--constraint", f"kind=max_requests,count={order.n}"),
        *("--tokenizer", f"kind=hf_auto,model={tokenizer.write(order.folder / 'tokenizer')}"),
        *("--data", f"kind=json_file,path={order.prompts}"),
        *("--output", f"kind=json,path={order.folder / 'out.json'}", "--disable-console-interactive"),
    ]


def _guidellm_done(order: Order) -> int:
    report = json.loads((order.folder / "out.json").read_bytes())
    return int(report["benchmarks"][0]["scheduler_metrics"]["requests_made"]["successful"])


CLIENTS = (
    _loop("aiohttp", (1_000, 11_000)),
    _loop("httpx", (200, 1_200)),
    Client("AIPerf", "aiperf", (300, 3_300), _aiperf, _aiperf_done, repeats=1),
    Client("GuideLLM", "guidellm", (300, 1_300), _guidellm, _guidellm_done, repeats=1),
)
