"""The pool of a scenario: embedded servers that it may slow down, break, kill, stop and bring back."""

from __future__ import annotations

import http.client
import json
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from lbrun.embedded.journal import Entries, read_journal
from lbrun.embedded.pool import Bind, EmbeddedPool
from lbrun.embedded.settings import EmbeddedSettings
from lbrun.faults.command import NotInTimeError

FAST: Mapping[str, Any] = {
    "count": 3, "slots": 16, "ttft_base_ms": 2.0, "ttft_per_token_us": 0.0, "tpot_ms": 0.3,
}  # fmt: skip
"""Some 25 ms an answer."""
SLOWNESS = 20
"""A pool that is slow takes half a second an answer, so that a run lasts until its faults are over."""

_FINISHED = {
    "vllm": r'vllm:request_success_total\{[^}]*finished_reason="(?:stop|length)"[^}]*\}',
    "sglang": r"sglang:num_requests_total\{[^}]*\}",
}
_START_TIMEOUT_S = 20.0

_T = TypeVar("_T")


class Servers:
    """A running pool, all of its servers healthy.

    settings: as `EmbeddedSettings` has them, over `FAST`. bind: where servers listen (see `EmbeddedPool`).
    within: runs a call where the servers can be reached, e.g. in a network of their own.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        log_dir: Path,
        *,
        bind: Bind | None = None,
        within: Callable[[Callable[[], Any]], Any] = lambda call: call(),
    ) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        journal = str(log_dir / "journal-{server}.jsonl")
        self._settings = EmbeddedSettings(**{**FAST, "journal": journal, **settings})
        self._within = within
        self._pool = (
            EmbeddedPool(self._settings, log_dir)
            if bind is None
            else EmbeddedPool(self._settings, log_dir, bind=bind)
        )
        self._slow = False
        self._faults: dict[int, tuple[str, ...]] = {}
        self.urls: Sequence[str] = self._pool.start()
        try:
            for index in range(len(self.urls)):
                self._until_up(index)
        except BaseException:
            self._pool.stop()
            raise

    def __len__(self) -> int:
        return len(self.urls)

    @property
    def settings(self) -> EmbeddedSettings:
        """What the servers were told to be."""
        return self._settings

    # ---- what they have done

    def finished(self, index: int) -> int:
        """Requests that a server has answered well since its start, by its own count; 0 while it is gone."""
        pattern = _FINISHED[self._settings.backend]
        try:
            text = self._request(index, "GET", "/metrics").decode()
        except (OSError, http.client.HTTPException):
            return 0
        return int(sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE)))

    def journals(self) -> list[Entries]:
        """What each server wrote down of its requests and answers, all its lives together."""
        found = []
        for index in range(len(self.urls)):
            path = Path(str(self._settings.journal).replace("{server}", str(index)))
            found.append(read_journal(path.read_text().splitlines() if path.exists() else ()))
        return found

    def answers(self, index: int) -> bool:
        """Whether a server answers control requests."""
        try:
            self._request(index, "GET", "/__faults__")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def alive(self, index: int) -> bool:
        """Whether a server's process exists."""
        return self._pool.alive(index)

    # ---- what is done to them

    def slow_down(self) -> None:
        """Make the whole pool slow, so that the run lasts."""
        self._slow = True
        self._switch_all()

    def hurry(self) -> None:
        """Make the whole pool fast, so that the run ends."""
        self._slow = False
        self._switch_all()

    def have(self, index: int, *faults: str) -> None:
        """Let a server have these faults and no others (``KIND[=VALUE][+DURATION_S][*SHARE]``)."""
        self._faults[index] = faults
        self._switch(index)

    def heal(self, index: int) -> None:
        """Take a server's faults away."""
        self.have(index)

    def kill(self, index: int) -> None:
        """SIGKILL: connections are reset, and the port refuses new ones when this returns."""
        self._pool.kill(index)

    def freeze(self, index: int) -> None:
        """SIGSTOP: it keeps its connections, the kernel takes new ones, and no byte comes."""
        self._pool.kill(index, signal.SIGSTOP)

    def thaw(self, index: int) -> None:
        """SIGCONT: it goes on, and answers what it was asked long ago."""
        self._pool.kill(index, signal.SIGCONT)

    def restart(self, index: int) -> None:
        """Start a server anew on its port; it answers a moment later, without faults and at full speed."""
        self._pool.restart(index)

    def resume(self, index: int) -> None:
        """Let a restarted server be as faulty and as slow as it was told to be before."""
        self._switch(index)

    def stop(self) -> None:
        """End all servers."""
        self._pool.stop()

    def _switch_all(self) -> None:
        for index in range(len(self.urls)):
            if self.answers(index):
                self._switch(index)

    def _switch(self, index: int) -> None:
        faults = [*self._faults.get(index, ())]
        if self._slow:
            faults.append(f"slow_factor={SLOWNESS}")
        self._request(index, "POST", "/__faults__", {"faults": faults})

    def _until_up(self, index: int) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not self.answers(index):
            if time.monotonic() > deadline_s:
                raise NotInTimeError(f"{self.urls[index]} did not start")
            time.sleep(0.02)

    def _request(self, index: int, method: str, path: str, body: object = None) -> bytes:
        answer: bytes = self._within(lambda: _request(self.urls[index], method, path, body))
        return answer


def _request(url: str, method: str, path: str, body: object) -> bytes:
    """A server's answer, over a connection of its own. Raises HTTPException for a status other than 200."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=2)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise http.client.HTTPException(f"{answer.status} to {method} {url}{path}: {content[:200]!r}")
    return content
