"""The yardstick of what a plain httpx loop costs. A program of its own: needs nothing but httpx.

httpx_loop.py URL N IN_FLIGHT STREAM: N requests, so many at a time; STREAM 1 reads and counts SSE events.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httpx

BODY = {"model": "bench", "prompt": "x" * 1000, "max_tokens": 128}


async def whole(client: httpx.AsyncClient, url: str) -> int:
    """Tokens of a whole answer."""
    answer = await client.post(url, json=BODY)
    return int(answer.json()["usage"]["completion_tokens"])


async def stream(client: httpx.AsyncClient, url: str) -> int:
    """Token events of a stream, each decoded."""
    n = 0
    async with client.stream("POST", url, json={**BODY, "stream": True}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"]:
                n += 1
    return n


async def main(url: str, n: int, in_flight: int, *, streams: bool) -> None:
    """Send n requests."""
    left = iter(range(n))
    read = stream if streams else whole
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:

        async def work() -> None:
            for _ in left:
                if await read(client, url) != 128:
                    raise SystemExit("an answer is not complete")

        await asyncio.gather(*(work() for _ in range(in_flight)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), streams=sys.argv[4] == "1"))
