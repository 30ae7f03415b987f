"""Servers that say no: statuses, readiness, models, and health that disagrees with completions."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from lbrun.errors import EXIT_FAILED
from lbrun.faults.catalogue.answers import from_the_start, until_out
from lbrun.faults.evidence import Evidence
from lbrun.faults.scenario import BACK_WITHIN_S, HUNG_OUT_WITHIN_S, Expected, Mode, Scenario
from lbrun.faults.stage import Stage

_OUT = Expected(out_within_s=HUNG_OUT_WITHIN_S)
_OUT_AND_BACK = Expected(out_within_s=HUNG_OUT_WITHIN_S, back_within_s=BACK_WITHIN_S)
_STAYS = Expected(stays_in=True)
_EVERYWHERE = (0, 1, 2)
_THROTTLED_S = 3.0
_NOT_FOUND = 404
_WINDOW_S = 3
_BURST = 20
"""What the retry budget has saved up at most."""
_LEEWAY = 1.1
"""Retries are counted when they are sent, which is a little after they were granted."""


def _struck_to_the_end(stage: Stage, fault: str, *servers: int) -> None:
    stage.start()
    stage.until_busy(*servers)
    for server in servers:
        stage.servers.have(server, fault)


def _refuses(fault: str, about: str) -> Scenario:
    """One server that has served refuses what the others serve: it is ejected like for any other fault."""

    def act(stage: Stage) -> None:
        stage.start()
        stage.until_busy(stage.VICTIM)
        stage.strike(stage.VICTIM, fault)
        stage.until_out(stage.VICTIM)

    return Scenario(name=f"{fault}_on_one", about=about, act=act, expected=_OUT)


def _throttled(name: str, about: str, value: str) -> Scenario:
    def act(stage: Stage) -> None:
        date = datetime.now(UTC) + timedelta(seconds=_THROTTLED_S)
        retry_after = format_datetime(date, usegmt=True) if value == "date" else value
        stage.start()
        stage.until_busy(stage.VICTIM)
        stage.servers.have(stage.VICTIM, f"status_429={retry_after}")
        stage.linger(_THROTTLED_S)
        stage.servers.heal(stage.VICTIM)

    return Scenario(name=name, about=about, act=act, expected=_STAYS)


def _throttled_everywhere(stage: Stage) -> None:
    stage.start()
    stage.until_busy(*_EVERYWHERE)
    for server in _EVERYWHERE:
        stage.servers.have(server, "status_429=1")
    stage.linger(_THROTTLED_S)
    for server in _EVERYWHERE:
        stage.servers.heal(server)


def _refused_everywhere(fault: str) -> Scenario:
    def act(stage: Stage) -> None:
        stage.start()
        stage.until_busy(*_EVERYWHERE)
        stage.breaks()
        for server in _EVERYWHERE:
            stage.servers.have(server, fault)

    status = fault.removeprefix("status_")
    expected = Expected(
        exit_status=frozenset({EXIT_FAILED}),
        lost=(1, None),
        stays_in=True,
        says=("refused by every server", status),
        ends_within_s=10.0,
    )
    about = f"every server answers {status} from some moment on: the run ends with that error, all stay in"
    return Scenario(name=f"{fault}_on_all", about=about, act=act, expected=expected)


def _one_sample_refused(stage: Stage) -> None:
    _struck_to_the_end(stage, "status_422*0.02", 0, 1)


def _loading_again(stage: Stage) -> None:
    stage.start()
    stage.until_busy(stage.VICTIM)
    stage.strike(stage.VICTIM, "status_503_loading")
    stage.until_out(stage.VICTIM)
    stage.linger(2.0)
    stage.heal(stage.VICTIM)
    stage.until_back(stage.VICTIM)


def _health_fails(stage: Stage) -> None:
    stage.start()
    stage.until_busy(stage.VICTIM)
    stage.servers.have(stage.VICTIM, "health_fails")


def _left_out(evidence: Evidence) -> list[str]:
    victim = evidence.result["servers"][Stage.VICTIM]
    wrong = [] if victim["state"] == "excluded" else [f"the server is {victim['state']}, not excluded"]
    return wrong + ([f"it got {victim['requests']} requests"] if victim["requests"] else [])


def _redirect_not_followed(evidence: Evidence) -> list[str]:
    """The redirected requests are failed attempts; had they been followed, their answer was a 404."""
    messages = {
        attempt["message"]
        for row in evidence.rows
        for attempt in row["attempts"] or ()
        if attempt["failure"] is not None and attempt["server"] == evidence.urls[Stage.VICTIM]
    }
    return [f"it failed with {m!r}" for m in messages if "307" not in m and "taken back" not in m]


def _paced(evidence: Evidence) -> list[str]:
    """In no window are there more retries than the budget gives, where the budget paces them.

    Offline, the attempts in flight are bounded instead.
    """
    if evidence.mode is Mode.OFFLINE:
        return []
    retry = evidence.result["config"]["servers"]["retry"]
    firsts = sorted((row["attempts"] or [row])[0]["sent_ns"] for row in evidence.rows)
    retries = sorted(a["sent_ns"] for row in evidence.rows for a in (row["attempts"] or ())[1:])
    problems = []
    for begin_ns in retries[:: max(1, len(retries) // 50)]:
        end_ns = begin_ns + _WINDOW_S * 10**9
        made = bisect_left(retries, end_ns) - bisect_left(retries, begin_ns)
        load = bisect_left(firsts, end_ns) - bisect_left(firsts, begin_ns)
        allowed = _BURST + retry["budget_share"] * load + retry["budget_per_s"] * _WINDOW_S
        if made > allowed * _LEEWAY:
            problems.append(f"{made} retries in {_WINDOW_S} s over {load} samples, {allowed:.0f} expected")
    return problems[:1]


def _ready_late(stage: Stage) -> None:
    stage.servers.have(stage.VICTIM, "status_503_loading")
    stage.start()
    stage.until_busy(0)
    stage.linger(3.0)
    stage.breaks(stage.VICTIM)
    stage.servers.heal(stage.VICTIM)
    stage.mends(stage.VICTIM)
    stage.until_back(stage.VICTIM)


def _joined(evidence: Evidence) -> list[str]:
    return (
        []
        if evidence.result["servers"][Stage.VICTIM]["completed"]
        else ["it got no work after it had joined"]
    )


SCENARIOS = (
    Scenario(
        name="status_500",
        about="one of three servers answers 500",
        act=until_out("status_500"),
        expected=_OUT_AND_BACK,
    ),
    Scenario(
        name="status_500_on_30_percent",
        about="every server answers 30 % of its requests with 500",
        act=from_the_start("status_500*0.3"),
        expected=Expected(attempts_per_sample=1.7),
        bound_s=120.0,
        check=_paced,
    ),
    _throttled("status_429_seconds", "one server answers 429 for 3 s, Retry-After: 1", "1"),
    _throttled("status_429_date", "one server answers 429 for 3 s, Retry-After a date", "date"),
    _throttled("status_429_junk", "one server answers 429 for 3 s, Retry-After: soon", "soon"),
    Scenario(
        name="status_429_on_all",
        about="every server answers 429 for 3 s, Retry-After: 1",
        act=_throttled_everywhere,
        expected=_STAYS,
    ),
    Scenario(
        name="status_503_loading",
        about="one server loads again in the middle of the run: 503 for requests and health",
        act=_loading_again,
        expected=_OUT_AND_BACK,
    ),
    _refuses("status_401", "one server answers 401 from some moment on"),
    _refuses("wrong_model", "one server changes its model: the right name gets 404"),
    Scenario(
        name="status_400_on_one",
        about="one server answers 400 to what the others serve",
        act=until_out("status_400", and_back=False),
        expected=_OUT,
        quick=(Mode.OFFLINE,),
    ),
    _refused_everywhere("status_400"),
    _refused_everywhere("status_422"),
    Scenario(
        name="status_422_on_some_requests",
        about="two servers refuse 2 % of their requests with 422, others serve the same: nobody is out",
        act=_one_sample_refused,
        expected=_STAYS,
    ),
    *(
        Scenario(
            name=f"one_{status}",
            about=f"each server answers {status} once in a hundred requests: nobody is out for it",
            act=from_the_start(f"status={status}*0.01"),
            expected=Expected(stays_in=True),
            quick=(Mode.OFFLINE,) if status == _NOT_FOUND else (),
        )
        for status in (401, 403, _NOT_FOUND)
    ),
    *(
        Scenario(
            name=f"status_{status}_on_10_percent",
            about=f"every server answers {status} to 10 % of its requests: nobody refuses for good",
            act=from_the_start(f"status={status}*0.1"),
            expected=Expected(attempts_per_sample=1.3),
        )
        for status in (408, 409, 425)
    ),
    Scenario(
        name="retry_after_a_day",
        about="every server answers 3 % of its requests with 429 and Retry-After: 86400",
        act=from_the_start("status=429;86400*0.03"),
        expected=Expected(stays_in=True, attempts_per_sample=1.2),
        bound_s=90.0,
    ),
    Scenario(
        name="redirect",
        about="one server answers with redirects, which are not followed",
        act=until_out("redirect", and_back=False),
        expected=_OUT,
        check=_redirect_not_followed,
    ),
    Scenario(
        name="health_fails",
        about="one server's health fails, its completions are fine",
        act=_health_fails,
        expected=_STAYS,
    ),
    Scenario(
        name="completions_fail",
        about="one server's completions fail, its health is fine",
        act=until_out("health_ok_completions_fail"),
        expected=_OUT_AND_BACK,
    ),
    Scenario(
        name="wrong_model_from_the_start",
        about="one server lists another model",
        act=from_the_start("wrong_model", servers=(Stage.VICTIM,)),
        expected=Expected(says=("another/model",)),
        modes=(Mode.OFFLINE,),
        check=_left_out,
        samples=512,
    ),
    Scenario(
        name="never_ready",
        about="one server never becomes ready",
        act=from_the_start("status_503_loading", servers=(Stage.VICTIM,)),
        overrides=("servers.settle_s=1",),
        modes=(Mode.OFFLINE,),
        check=_left_out,
        samples=512,
    ),
    Scenario(
        name="none_ready",
        about="no server becomes ready within 3 s: no test, exit status 1",
        act=from_the_start("status_503_loading"),
        overrides=("servers.ready_timeout_s=3",),
        expected=Expected(exit_status=frozenset({EXIT_FAILED}), says=("No API servers became ready", "503")),
        modes=(Mode.OFFLINE,),
    ),
    Scenario(
        name="ready_late",
        about="one server loads for 3 s more than the others, and joins the run",
        act=_ready_late,
        overrides=("servers.settle_s=0.5",),
        samples=2048,
        check=_joined,
    ),
)
