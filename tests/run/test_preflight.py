"""One short request to each server before the test: what it must find, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from lbrun.attempt import Answer, AttemptFailure, AttemptResult, AttemptSink, FailureKind
from lbrun.errors import RunFailed
from lbrun.run import preflight
from lbrun.run.preflight import check_answers

URLS = ["http://a:1", "http://b:2", "http://c:3"]
GOOD = AttemptResult(1, 2, 0, 3, Answer(1, 1, None, "stop"))


class ScriptedWorker:
    """Answers each server's request as told; None: never."""

    def __init__(self, outcomes: Mapping[int, FailureKind | str | None]) -> None:
        self.outcomes, self.closed = outcomes, False

    def start(self, sink: AttemptSink) -> None:
        self.sink = sink

    def submit(self, attempt_id: int, sample_index: int, server: int, fresh: bool = False) -> None:
        assert sample_index == 0
        outcome = self.outcomes[server]
        if outcome == "good":
            self.sink.completed(attempt_id, GOOD)
        elif isinstance(outcome, FailureKind):
            self.sink.failed(attempt_id, AttemptFailure(outcome, f"said {outcome.name}", 5))

    def flush(self) -> None: ...
    def cancel(self, attempt_id: int) -> None: ...
    def evict(self, server: int) -> None: ...
    def last_byte_ns(self, server: int) -> int:
        return 0

    async def close(self) -> None:
        self.closed = True


def check(outcomes: Mapping[int, FailureKind | str | None]) -> tuple[list[int], ScriptedWorker]:
    worker = ScriptedWorker(outcomes)
    findings = asyncio.run(check_answers(worker, list(outcomes), URLS, 0.05))
    return [finding.server for finding in findings], worker


def test_servers_that_answer_take_part() -> None:
    found, worker = check({0: "good", 1: "good", 2: "good"})
    assert found == []
    assert worker.closed


@pytest.mark.parametrize(
    "kind", [FailureKind.HTTP_4XX, FailureKind.NO_TOKEN_COUNT, FailureKind.MALFORMED, FailureKind.NO_END_MARK]
)
def test_a_server_that_cannot_serve_the_run_is_found(kind: FailureKind) -> None:
    assert check({0: "good", 1: kind, 2: "good"})[0] == [1]


@pytest.mark.parametrize(
    "kind", [FailureKind.HTTP_5XX, FailureKind.HTTP_429, FailureKind.REFUSED, FailureKind.HTTP_503]
)
def test_trouble_that_may_pass_is_left_to_the_servers_health(kind: FailureKind) -> None:
    assert check({0: kind, 1: kind, 2: kind})[0] == []


def test_without_any_token_count_the_run_stops_before_its_load_and_says_what_each_said() -> None:
    outcomes = dict.fromkeys(range(3), FailureKind.NO_TOKEN_COUNT)
    with pytest.raises(RunFailed) as caught:
        check(outcomes)
    assert "No server can serve this run" in str(caught.value)
    for url in URLS:
        assert f"{url}: said NO_TOKEN_COUNT" in str(caught.value)


def test_a_server_is_asked_once_more_before_it_is_found_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "ASK_AGAIN_AFTER_S", 0.0)

    class Wavering(ScriptedWorker):
        def submit(self, attempt_id: int, sample_index: int, server: int, fresh: bool = False) -> None:
            super().submit(attempt_id, sample_index, server, fresh)
            if server == 1:
                self.outcomes = {**self.outcomes, 1: "good"}

    outcomes = {0: "good", 1: FailureKind.HTTP_4XX, 2: FailureKind.HTTP_4XX}
    findings = asyncio.run(check_answers(Wavering(outcomes), list(outcomes), URLS, 5.0))
    assert [finding.server for finding in findings] == [2]


def test_a_server_that_never_answers_holds_nobody_up() -> None:
    found, worker = check({0: "good", 1: None, 2: FailureKind.HTTP_4XX})
    assert found == [2]
    assert worker.closed
