"""Servers that die, hang, stay away and come back under a run: no sample is lost, or the run says so.

The servers are slow until the test has seen what it waits for (`SLOW`), so that the fault falls into the run
on any machine; then `Servers.hurry` lets the run end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from embedded_servers import Servers
from lbrun_process import RESULT_KEYS, SMALL_SERVER, Ended, Lbrun, Running

from lbrun.embedded.faults import parse_fault

Pool = Callable[..., Servers]

SAMPLES = 768
VICTIM = 1
SLOW = tuple(parse_fault(f"{server}:slow_factor=20") for server in range(3))
FAST = {"slots": 16, "ttft_base_ms": 2.0, "ttft_per_token_us": 0.0, "tpot_ms": 0.3}
"""Some 25 ms an answer, and half a second while the pool is slow: 768 samples take 8 s and more then."""

OFFLINE = ("rules=trial", f"scenario.trial.min_query_count={SAMPLES}", "servers.max_in_flight=16")
SOON = ("servers.health.backoff_base_s=0.2", "servers.health.probe_interval_s=0.2", "servers.settle_s=0.5",
        "servers.health.ramp_s=1")  # fmt: skip
"""Recovery without the patience that real servers need."""


def check_nothing_lost(ended: Ended, issued: int = SAMPLES) -> dict[str, Any]:
    """Every sample was answered once, and the verdict is LoadGen's; returns result.json."""
    assert ended.status == 0, ended.err + ended.out
    result = ended.check_books()
    assert result["verdict"] == "VALID"
    assert result["samples"] == {"issued": issued, "completed": issued, "failed": 0}
    return result


def test_offline_loses_nothing_when_a_server_is_killed_and_comes_back(lbrun: Lbrun, serve: Pool) -> None:
    pool = serve(count=3, faults=SLOW, **FAST)
    run = lbrun.start(pool.override, *OFFLINE, *SOON)
    run.until(lambda: pool.busy(VICTIM), "the server is in the middle of its work")
    pool.kill(VICTIM)
    run.until_state(pool.urls[VICTIM], "ejected")
    pool.restart(VICTIM)
    run.until_state(pool.urls[VICTIM], "trial")
    run.until(lambda: ready_again(run, pool.urls[VICTIM]), "the server is back in service")
    pool.hurry()
    result = check_nothing_lost(run.wait())
    victim = result["servers"][VICTIM]
    assert (victim["state"], victim["ejections"], victim["recoveries"]) == ("ready", 1, 1)
    assert victim["failed"] > 0
    assert pool.finished(VICTIM) > 0
    assert result["attempts"]["retried"] > 0
    assert [server["ejections"] for server in result["servers"]] == [0, 1, 0]


def test_offline_loses_nothing_when_a_server_hangs_and_goes_on(lbrun: Lbrun, serve: Pool) -> None:
    """Stopped servers accept connections and say nothing; what they answer when they go on is too late."""
    pool = serve(count=3, faults=SLOW, **FAST)
    run = lbrun.start(
        pool.override, *OFFLINE, *SOON, "servers.health.stall_s=1", "servers.health.probe_timeout_s=0.3"
    )
    run.until(lambda: pool.busy(VICTIM), "the server is in the middle of its work")
    pool.freeze(VICTIM)
    run.until_state(pool.urls[VICTIM], "ejected")
    pool.thaw(VICTIM)
    run.until(lambda: ready_again(run, pool.urls[VICTIM]), "the server is back in service")
    pool.hurry()
    result = check_nothing_lost(run.wait())
    victim = result["servers"][VICTIM]
    assert (victim["state"], victim["recoveries"]) == ("ready", victim["ejections"])
    reasons = [event["reason"] for event in run.events() if event["to"] == "suspect"]
    assert any("no byte" in reason for reason in reasons), reasons


def test_server_streams_survive_a_kill(lbrun: Lbrun, serve: Pool) -> None:
    """Streams cut half-way are begun again elsewhere; their first token stays as it was reported."""
    pool = serve(count=3, slots=64, ttft_base_ms=5.0, ttft_per_token_us=0.0, tpot_ms=3.0)
    run = lbrun.start(pool.override, "rules=trial", "scenario=server", "scenario.target_qps=100",
                      "scenario.trial.min_query_count=512", *SOON)  # fmt: skip
    run.until(lambda: pool.busy(VICTIM, finished=5), "the server is in the middle of its work")
    pool.kill(VICTIM)
    run.until_state(pool.urls[VICTIM], "ejected")
    pool.restart(VICTIM)
    run.until(lambda: ready_again(run, pool.urls[VICTIM]), "the server is back in service")
    ended = run.wait()
    result = check_nothing_lost(ended, issued=512)
    assert result["attempts"]["restarted_streams"] > 0
    restarted = [row for row in ended.records.to_pylist() if row["restarted"]]
    assert len(restarted) == result["attempts"]["restarted_streams"]
    for row in restarted:
        cut, good = row["attempts"][0], row["attempts"][-1]
        assert cut["failure"] == "CUT"
        assert good["failure"] is None
        assert row["issued_ns"] < row["first_token_ns"] < cut["end_ns"] < good["sent_ns"] < row["done_ns"]


def ready_again(run: Running, url: str) -> bool:
    """The server's last transition is the one from its trial into service."""
    events = [event for event in run.events() if event.get("server") == url]
    return [(event["from"], event["to"]) for event in events[-1:]] == [("trial", "ready")]


def test_a_pool_that_dies_for_good_fails_the_run_and_resolves_every_sample(lbrun: Lbrun, serve: Pool) -> None:
    pool = serve(count=3, faults=SLOW, **FAST)
    run = lbrun.start(pool.override, *OFFLINE, "servers.grace_s=1")
    run.until(lambda: all(pool.busy(server) for server in range(3)), "all servers are at work")
    for server in range(3):
        pool.kill(server)
    ended = run.wait()
    assert ended.status == 1
    result = ended.check_books()
    assert result["verdict"] == "FAILED"
    assert result["samples"]["issued"] == SAMPLES
    assert result["samples"]["failed"] > 0
    assert result["samples"]["completed"] > 0
    assert ended.headline.startswith("FAILED, trial")
    assert "All servers marked as failed" in ended.out
    for url in pool.urls:
        assert f"{url}: " in next(e for e in result["errors"] if "All servers marked as failed" in e)
    logs = {path.name for path in (ended.folder / "mlperf").iterdir()}
    assert not logs & {"mlperf_log_summary.txt", "mlperf_log_detail.txt", "mlperf_log_accuracy.json"}
    assert "mlperf_log_detail.not-for-submission.txt" in logs


def test_a_pool_that_returns_within_the_grace_time_loses_nothing(lbrun: Lbrun, serve: Pool) -> None:
    pool = serve(count=2, faults=SLOW[:2], **FAST)
    run = lbrun.start(pool.override, *OFFLINE, *SOON)
    run.until(lambda: all(pool.busy(server) for server in range(2)), "all servers are at work")
    for server in range(2):
        pool.kill(server)
    for url in pool.urls:
        run.until_state(url, "ejected")
    for server in range(2):
        pool.restart(server)
    for url in pool.urls:
        run.until(partial(ready_again, run, url), f"{url} is back in service")
    pool.hurry()
    check_nothing_lost(run.wait())


def test_without_recovery_a_failed_server_stays_out(lbrun: Lbrun, serve: Pool) -> None:
    pool = serve(count=3, faults=SLOW, **FAST)
    run = lbrun.start(pool.override, *OFFLINE, *SOON, "servers.recovery=none")
    run.until(lambda: pool.busy(VICTIM), "the server is in the middle of its work")
    pool.kill(VICTIM)
    run.until_state(pool.urls[VICTIM], "ejected")
    pool.restart(VICTIM)
    pool.hurry()
    result = check_nothing_lost(run.wait())
    victim = result["servers"][VICTIM]
    assert (victim["state"], victim["ejections"], victim["recoveries"]) == ("ejected", 1, 0)
    assert pool.finished(VICTIM) == 0


def test_without_recovery_a_pool_that_is_gone_is_not_waited_for(lbrun: Lbrun, serve: Pool) -> None:
    pool = serve(count=1, faults=SLOW[:1], **FAST)
    run = lbrun.start(pool.override, *OFFLINE, "servers.recovery=none", "servers.grace_s=3600")
    run.until(lambda: pool.busy(0), "the server is in the middle of its work")
    pool.kill(0)
    ended = run.wait()
    assert ended.status == 1
    assert ended.check_books()["samples"]["issued"] == SAMPLES
    assert "All servers marked as failed" in ended.out


# before the test


def test_a_run_begins_without_a_server_that_is_down_and_a_trial_takes_it_in_later(
    lbrun: Lbrun, serve: Pool
) -> None:
    pool = serve(count=3, faults=SLOW, **FAST)
    pool.kill(VICTIM)
    run = lbrun.start(pool.override, *OFFLINE, *SOON)
    run.until(lambda: pool.busy(0), "the run has begun")
    assert "refused" in run.until_state(pool.urls[VICTIM], "excluded")["reason"]
    pool.restart(VICTIM)
    run.until_state(pool.urls[VICTIM], "ready")
    run.until(lambda: pool.busy(VICTIM, finished=1), "the server takes part")
    pool.hurry()
    ended = run.wait()
    result = check_nothing_lost(ended)
    assert result["servers"][VICTIM]["state"] == "ready"
    assert any(pool.urls[VICTIM] in line and "excluded" in line for line in ended.told)


def test_a_pool_that_never_becomes_ready_ends_the_run_with_what_each_server_said(
    lbrun: Lbrun, serve: Pool
) -> None:
    pool = serve(count=2, faults=(parse_fault("0:status_503_loading"),), wait=False)
    pool.kill(1)
    ended = lbrun(pool.override, "rules=trial", "servers.ready_timeout_s=1.5")
    assert ended.status == 1
    assert not ended.out
    first, *said = ended.complaint
    assert first.startswith("lbrun: No API servers became ready within 1.5 s:")
    assert [line.strip().partition(": ")[0] for line in said] == pool.urls
    assert "503" in said[0]
    assert "refused" in said[1]
    result = ended.result
    assert (result["verdict"], result["state"], result["exit_status"]) == ("FAILED", "broken", 1)
    assert result["errors"][0].startswith("No API servers became ready")
    assert result.keys() >= RESULT_KEYS
    assert result["samples"] == {"issued": 0, "completed": 0, "failed": 0}
    assert result["environment"]["python"]


def test_a_wrong_model_name_ends_the_run_with_the_names_that_are_served(lbrun: Lbrun, healthy: Pool) -> None:
    pool = healthy()
    ended = lbrun(pool.override, "rules=trial", "servers.served_model=llama-typo")
    assert ended.status == 1
    first, *said = ended.complaint
    assert first == "lbrun: No API servers became ready:"
    assert len(said) == len(pool.urls)
    for line in said:
        assert "llama-typo" in line
        assert "servers.served_model=meta-llama/Llama-3.1-8B-Instruct" in line


ENDINGS = ("error_event_then_done", "reset_mid_stream", "status_500", "eof_no_end_mark")


def test_streams_that_end_badly_are_answered_by_a_server_that_ends_them_well(
    lbrun: Lbrun, serve: Pool
) -> None:
    """A dying vLLM ends its streams well in HTTP, with an error event and [DONE]: that is no answer.

    The last of the servers never ends a stream as it should, which already the trial before the test shows.
    """
    faults = tuple(parse_fault(f"{server}:{kind}") for server, kind in enumerate(ENDINGS, 1))
    pool = serve(count=1 + len(ENDINGS), faults=faults, **FAST)
    ended = lbrun(pool.override, "rules=trial", "scenario=server", *SMALL_SERVER)
    result = check_nothing_lost(ended, issued=24)
    assert [server["completed"] for server in result["servers"]] == [24, 0, 0, 0, 0]
    assert [server["failed"] > 0 for server in result["servers"]] == [False, True, True, True, False]
    assert result["servers"][-1]["state"] == "excluded"
    (warning,) = (text for text in result["warnings"] if "takes no part" in text)
    assert warning.startswith(f"{pool.urls[-1]} takes no part: the first request failed: ")
    assert warning in ended.out
    assert (ended.folder / "mlperf" / "mlperf_log_summary.txt").is_file()
