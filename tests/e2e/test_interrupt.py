"""Ctrl-C, SIGTERM and kill -9, of the command and of the test's process."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest
from embedded_servers import Servers
from lbrun_process import SMALL, Ended, Lbrun, Running, urls, wait_until

from lbrun.embedded.faults import parse_fault

Pool = Callable[..., Servers]

SAMPLES = 768
NEVER_DONE = ("rules=trial", f"scenario.trial.min_query_count={SAMPLES}", "servers.max_in_flight=16")
"""At half a second an answer and 32 at a time, 12 s: the tests end it long before."""


@pytest.fixture
def slow(serve: Pool) -> Servers:
    """Two servers that take half a second for an answer."""
    return serve(
        count=2,
        slots=16,
        ttft_base_ms=20.0,
        ttft_per_token_us=0.0,
        tpot_ms=6.0,
    )


def at_work(run: Running, pool: Servers) -> None:
    """Wait until all servers are in the middle of their work."""
    run.until(lambda: all(pool.busy(server) for server in range(2)), "the run is in its midst")


def test_ctrl_c_drains_what_is_in_flight_and_writes_what_is_known(lbrun: Lbrun, slow: Servers) -> None:
    run = lbrun.start(slow.override, *NEVER_DONE, "client.drain_s=30")
    at_work(run, slow)
    run.signal(signal.SIGINT)
    ended = run.wait()
    assert ended.status == 130
    result = ended.check_books()
    assert (result["verdict"], result["state"]) == ("FAILED", "interrupted")
    assert ended.headline.startswith("FAILED, trial")
    assert " · interrupted" in ended.headline
    assert result["samples"]["issued"] == SAMPLES
    assert result["samples"]["completed"] == sum(slow.finished(i) for i in range(2)) - 2  # the first requests
    failures = set(ended.records.column("failure").to_pylist())
    assert failures == {None, "NOT_SENT"}
    assert "interrupted: draining; again to stop at once" in ended.err
    assert not list((ended.folder / "mlperf").glob("mlperf_log_summary.txt"))


def test_ctrl_c_waits_for_hanging_requests_no_longer_than_it_was_told(lbrun: Lbrun, slow: Servers) -> None:
    run = lbrun.start(slow.override, *NEVER_DONE, "client.drain_s=0.5")
    at_work(run, slow)
    slow.hang()
    run.until(lambda: not any(slow.running(i) for i in range(2)), "all requests hang")
    run.signal(signal.SIGINT)
    ended = run.wait()
    assert ended.status == 130
    assert ended.check_books()["state"] == "interrupted"


def test_a_second_ctrl_c_ends_the_run_at_once(lbrun: Lbrun, slow: Servers) -> None:
    """The drain would wait for hours; the records that were written are kept."""
    run = lbrun.start(slow.override, *NEVER_DONE, "client.drain_s=3600")
    at_work(run, slow)
    run.until(lambda: written(run), "records are written")
    slow.freeze(0)
    run.signal(signal.SIGINT)
    run.until(lambda: run.says("interrupted: waiting for the requests in flight"), "it drains")
    run.signal(signal.SIGINT)
    ended = run.wait()
    assert ended.status == 130
    result = ended.result
    assert (result["verdict"], result["state"]) == ("FAILED", "interrupted")
    check_only_recorded_answers_count(ended)


def check_only_recorded_answers_count(ended: Ended) -> None:
    """Of a test that was killed: what it had in flight was issued, and has no answer."""
    samples = ended.result["samples"]
    assert samples["completed"] == ended.records.num_rows > 0
    assert samples["failed"] == samples["issued"] - samples["completed"] > 0


def written(run: Running) -> bool:
    """Whether the stream of records has come to hold more than its head."""
    path = run.folder / "requests.arrows"
    return path.exists() and path.stat().st_size > 4096


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_the_servers_start_is_noted_as_one(lbrun: Lbrun, number: signal.Signals) -> None:
    run = lbrun.start(*SMALL)
    run.until(lambda: (run.folder / "result.json").exists(), "there is a result")
    run.signal(number)
    check_interrupted_before_the_test(run)


def test_an_interrupt_while_the_tests_process_starts_is_not_missed(lbrun: Lbrun, slow: Servers) -> None:
    run = lbrun.start(slow.override, *NEVER_DONE)
    run.test_process()
    run.signal(signal.SIGINT)
    check_interrupted_before_the_test(run)


def check_interrupted_before_the_test(run: Running) -> None:
    ended = run.wait()
    assert ended.status == 130
    assert ended.complaint[0].startswith("lbrun: interrupted")
    assert (ended.result["verdict"], ended.result["state"]) == ("FAILED", "interrupted")
    assert ended.result["samples"] == {"issued": 0, "completed": 0, "failed": 0}
    assert not run.family()


def test_sigterm_while_waiting_for_servers_ends_the_run(lbrun: Lbrun, serve: Pool) -> None:
    pool = serve(count=1, faults=(parse_fault("0:status_503_loading"),), wait=False)
    run = lbrun.start(pool.override, "rules=trial")
    run.until(lambda: run.says("waiting for 1 server"), "it waits for the server")
    run.signal(signal.SIGTERM)
    ended = run.wait()
    assert ended.status == 130
    assert ended.complaint == ["lbrun: interrupted before the test began"]
    result = ended.result
    assert (result["verdict"], result["state"], result["exit_status"]) == ("FAILED", "interrupted", 130)


def test_ctrl_c_ends_a_sweep_and_its_table_has_the_jobs_that_never_began(lbrun: Lbrun, slow: Servers) -> None:
    run = lbrun.start("-m", slow.override, *NEVER_DONE, "strategy=round_robin,random", folder="sweep")
    at_work(run, slow)
    run.signal(signal.SIGINT)
    ended = run.wait()
    assert ended.status == 130
    assert "2 jobs: 1 FAILED, 1 NO RESULT" in ended.out


# kill -9 of the command


def kill_and_check(run: Running) -> None:
    """Nothing is left running, and what is left on disk says that the run was cut."""
    run.process.kill()
    ended = run.wait()
    wait_until(lambda: not run.family(), "its servers and its test end with it")
    result = ended.result
    assert (result["verdict"], result["state"]) == ("FAILED", "running")
    assert any("cut" in error for error in result["errors"])
    query_ids = ended.records.column("query_id").to_pylist()
    assert len(set(query_ids)) == len(query_ids)


LONG = ("scenario.trial.min_query_count=100000", "servers.embedded.count=1", "servers.embedded.tpot_ms=5")
MOMENTS: dict[str, Callable[[Running], object]] = {
    "as soon as there is a result": lambda run: (run.folder / "result.json").exists(),
    "before the servers are ready": lambda run: run.says("waiting for 1 server"),
    "when records are written": written,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_9_leaves_no_process_and_a_result_that_says_so(lbrun: Lbrun, moment: str) -> None:
    run = lbrun.start(*LONG)
    run.until(lambda: MOMENTS[moment](run), moment)
    kill_and_check(run)


def test_kill_9_at_a_random_moment_leaves_no_process_and_a_result_that_says_so(lbrun: Lbrun) -> None:
    pause_s = random.uniform(0, 2)
    print(f"killed {pause_s:.3f} s after the result's beginning")
    run = lbrun.start(*LONG)
    run.until(lambda: (run.folder / "result.json").exists(), "there is a result")
    time.sleep(pause_s)  # any moment is right
    kill_and_check(run)


# kill -9 of the test's process


def test_a_killed_test_is_a_failed_run_with_a_plain_reason(lbrun: Lbrun, slow: Servers) -> None:
    run = lbrun.start(slow.override, *NEVER_DONE)
    at_work(run, slow)
    run.until(lambda: written(run), "records are written")
    run.test_process().kill()
    ended = run.wait()
    assert ended.status == 1
    result = ended.result
    assert (result["verdict"], result["state"]) == ("FAILED", "broken")
    assert "the test's process was ended by SIGKILL" in ended.headline
    assert "Traceback" not in ended.out + ended.err
    check_only_recorded_answers_count(ended)
    assert not list((ended.folder / "mlperf").glob("mlperf_log_detail.txt"))


def test_a_sweep_goes_on_after_a_killed_test(lbrun: Lbrun, serve: Pool) -> None:
    pools = [
        serve(count=2, slots=16, ttft_base_ms=20.0, tpot_ms=6.0),
        serve(count=2, slots=64, ttft_base_ms=2.0, tpot_ms=0.5),
    ]
    choice = ",".join(urls(pool.urls).partition("=")[2] for pool in pools)
    run = lbrun.start(
        "-m", f"servers.urls={choice}", "rules=trial", "scenario.trial.min_query_count=256", folder="sweep"
    )
    at_work(run, pools[0])
    run.test_process().kill()
    ended = run.wait()
    assert ended.status == 1
    assert "2 jobs: 1 FAILED, 1 VALID" in ended.out


def test_a_killed_test_before_its_beginning_is_a_failed_run_too(lbrun: Lbrun) -> None:
    run = lbrun.start(*SMALL, "servers.urls=[http://127.0.0.1:9]", "servers.ready_timeout_s=600")
    run.until(lambda: run.says("waiting for 1 server"), "it waits for the server")
    run.test_process().kill()
    ended = run.wait()
    assert ended.status == 1
    assert "the test's process was ended by SIGKILL" in ended.headline
    assert ended.result["samples"] == {"issued": 0, "completed": 0, "failed": 0}
