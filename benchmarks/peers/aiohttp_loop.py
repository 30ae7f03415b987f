"""The yardstick of what a plain aiohttp loop costs. A program of its own: needs nothing but aiohttp.

aiohttp_loop.py URL N IN_FLIGHT STREAM: N requests, so many at a time; STREAM 1 reads and counts SSE events.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
import json
import sys

import aiohttp

BODY = {"model": "bench", "prompt": "x" * 1000, "max_tokens": 128}


async def whole(session: aiohttp.ClientSession, url: str) -> int:
    """Tokens of a whole answer."""
    async with session.post(url, json=BODY) as answer:
        document = await answer.json()
        return int(document["usage"]["completion_tokens"])


async def stream(session: aiohttp.ClientSession, url: str) -> int:
    """Token events of a stream, each decoded."""
    n = 0
    async with session.post(url, json={**BODY, "stream": True}) as answer:
        async for line in answer.content:
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"]:
                n += 1
    return n


async def main(url: str, n: int, in_flight: int, *, streams: bool) -> None:
    """Send n requests."""
    left = iter(range(n))
    read = stream if streams else whole
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def work() -> None:
            for _ in left:
                if await read(session, url) != 128:
                    raise SystemExit("an answer is not complete")

        await asyncio.gather(*(work() for _ in range(in_flight)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), streams=sys.argv[4] == "1"))
