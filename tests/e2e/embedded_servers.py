"""Pools of embedded servers that a test owns, and may slow down, kill, stop and bring back."""

from __future__ import annotations

import http.client
import json
import re
import signal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lbrun_process import urls, wait_until

from lbrun.embedded.pool import EmbeddedPool
from lbrun.embedded.settings import EmbeddedSettings

MODELS = {
    "llama3_1_8b": ("meta-llama/Llama-3.1-8B-Instruct", 128_256),
    "gpt_oss_120b": ("openai/gpt-oss-120b", 201_088),
    "qwen3vl": ("Qwen/Qwen3-VL-235B-A22B-Instruct", 151_936),
}
"""The id and the vocabulary's size of each model in conf/model."""


class Servers:
    """A running pool.

    model: an option of conf/model. wait: until all servers are healthy. Other settings: `EmbeddedSettings`.
    """

    def __init__(
        self, log_dir: Path, *, model: str = "llama3_1_8b", wait: bool = True, **settings: Any
    ) -> None:
        name, vocab_size = MODELS[model]
        self._pool = EmbeddedPool(EmbeddedSettings(model=name, vocab_size=vocab_size, **settings), log_dir)
        self.urls = self._pool.start()
        for url in self.urls if wait else ():
            wait_until(partial(answers, url), f"{url} answers")

    @property
    def override(self) -> str:
        """What makes a run use this pool."""
        return urls(self.urls)

    def finished(self, index: int) -> int:
        """Requests that a server has answered since its start, by its own metrics (vLLM's)."""
        return self._metric(
            index, r'vllm:request_success_total\{[^}]*finished_reason="(?:stop|length)"[^}]*\}'
        )

    def running(self, index: int) -> int:
        """Requests that a server works on now, by its own metrics (vLLM's)."""
        return self._metric(index, r"vllm:num_requests_running\{[^}]*\}")

    def busy(self, index: int, finished: int = 2) -> bool:
        """Whether a server is in the middle of its work: it has answered some requests, and has others.

        finished: at least so many; the first is the trial request before the test, and no sample.
        """
        return self.finished(index) >= finished and self.running(index) > 0

    def kill(self, index: int) -> None:
        """SIGKILL: its connections are reset, and its port refuses new ones when this returns."""
        self._pool.kill(index)

    def freeze(self, index: int) -> None:
        """SIGSTOP: it keeps its connections, the kernel takes new ones, and no byte comes."""
        self._pool.kill(index, signal.SIGSTOP)

    def thaw(self, index: int) -> None:
        """SIGCONT."""
        self._pool.kill(index, signal.SIGCONT)

    def restart(self, index: int) -> None:
        """Start a server anew on its port, and wait until it answers."""
        self._pool.restart(index)
        wait_until(lambda: answers(self.urls[index]), f"{self.urls[index]} answers again")

    def hurry(self) -> None:
        """Take all faults away, so that a pool that began slow ends its run at once."""
        for url in self.urls:
            request(url, "DELETE", "/__faults__")

    def hang(self) -> None:
        """Answer no request any more that comes from now on."""
        for url in self.urls:
            request(url, "POST", "/__faults__", {"faults": ["hang_before_headers"]})

    def ask(self, index: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The server's answer to a request that is none of lbrun's."""
        document: dict[str, Any] = json.loads(request(self.urls[index], "POST", path, body))
        return document

    def stop(self) -> None:
        """End all servers."""
        self._pool.stop()

    def _metric(self, index: int, pattern: str) -> int:
        text = request(self.urls[index], "GET", "/metrics").decode()
        return int(sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE)))


def answers(url: str) -> bool:
    """Whether the server is healthy."""
    try:
        request(url, "GET", "/health")
    except (OSError, http.client.HTTPException):
        return False
    return True


def request(url: str, method: str, path: str, body: object = None) -> bytes:
    """A server's answer, over a connection of its own. Raises HTTPException for a status other than 200."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise http.client.HTTPException(f"{answer.status} to {method} {url}{path}: {content[:200]!r}")
    return content
