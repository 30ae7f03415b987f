"""Server processes that die, hang, return, flap; and the sample that kills every server it reaches."""

from __future__ import annotations

import json
from collections.abc import Callable

from lbrun.errors import EXIT_FAILED
from lbrun.faults.evidence import Evidence
from lbrun.faults.scenario import (
    BACK_WITHIN_S,
    HUNG_OUT_WITHIN_S,
    KILLED_OUT_WITHIN_S,
    Expected,
    Mode,
    Scenario,
)
from lbrun.faults.stage import Stage

_MANY = 2048
_MORE = 3072
_ALL = (0, 1, 2)
_GRACE_S = 5.0
_OUTAGE_S = 10.0
_POISONOUS = 17
"""The row of the poisonous sample."""


def _killed(stage: Stage) -> None:
    stage.start()
    stage.until_busy(stage.VICTIM)
    stage.kill(stage.VICTIM)
    stage.until_out(stage.VICTIM)
    stage.restart(stage.VICTIM)
    stage.until_back(stage.VICTIM)


def _frozen(stage: Stage) -> None:
    stage.start()
    stage.until_busy(stage.VICTIM)
    stage.breaks(stage.VICTIM)
    stage.servers.freeze(stage.VICTIM)
    stage.until_out(stage.VICTIM)
    stage.servers.thaw(stage.VICTIM)
    stage.mends(stage.VICTIM)
    stage.until_back(stage.VICTIM)


def _frozen_for_a_moment(stage: Stage) -> None:
    stage.start()
    stage.until_busy(stage.VICTIM)
    stage.servers.freeze(stage.VICTIM)
    stage.linger(2.0)
    stage.servers.thaw(stage.VICTIM)


def _rolling_restart(stage: Stage) -> None:
    stage.start()
    for server in _ALL:
        stage.until_busy(server)
        stage.kill(server)
        stage.restart(server)
        stage.until_back(server)


def _flapping(stage: Stage) -> None:
    stage.start()
    stage.until_busy(stage.VICTIM)
    for _ in range(4):
        stage.servers.kill(stage.VICTIM)
        stage.linger(2.0)
        stage.servers.restart(stage.VICTIM)
        stage.linger(2.0)


def _all_die(return_after_s: float | None) -> Callable[[Stage], None]:
    def act(stage: Stage) -> None:
        stage.start()
        stage.until_busy(*_ALL)
        stage.kill(*_ALL)
        if return_after_s is None:
            return
        stage.linger(return_after_s)
        stage.restart(*_ALL)
        stage.until_back(*_ALL)

    return act


def _all_freeze(stage: Stage) -> None:
    stage.start()
    stage.until_busy(*_ALL)
    stage.breaks(*_ALL)
    for server in _ALL:
        stage.servers.freeze(server)
    stage.until_out(*_ALL)
    for server in _ALL:
        stage.servers.thaw(server)
    stage.mends(*_ALL)
    stage.until_back(*_ALL)


def _all_freeze_for_good(stage: Stage) -> None:
    stage.start()
    stage.until_busy(*_ALL)
    stage.breaks(*_ALL)
    for server in _ALL:
        stage.servers.freeze(server)
    stage.run.wait()


def _two_of_three_die(stage: Stage) -> None:
    stage.start()
    stage.until_busy(0, 1)
    stage.kill(0, 1)
    stage.until_out(0, 1)
    stage.restart(0, 1)
    stage.until_back(0, 1)


def _three_of_four_crash(stage: Stage) -> None:
    """Each crashes by itself, at a request of its own number: no sample is the cause."""
    for server, request in enumerate((20, 30, 40)):
        stage.servers.have(server, f"crash={request}")
    stage.start(slow=False)


def _back_with_another_model(stage: Stage) -> None:
    stage.start()
    stage.until_busy(stage.VICTIM)
    stage.kill(stage.VICTIM)
    stage.servers.restart(stage.VICTIM)
    stage.until(lambda: stage.servers.answers(stage.VICTIM), "the restarted server answers")
    stage.servers.have(stage.VICTIM, "wrong_model")
    stage.linger(_OUTAGE_S)


def _swapped_server_stays_out(evidence: Evidence) -> list[str]:
    victim = evidence.result["servers"][Stage.VICTIM]
    problems = [] if victim["state"] != "ready" else ["the server with another model is in service"]
    said = str(evidence.result["warnings"]) + str(evidence.result["errors"])
    return problems if "another/model" in said else [*problems, "nothing is said of the other model"]


def _dead_on_arrival(stage: Stage) -> None:
    stage.servers.kill(stage.VICTIM)
    stage.start()
    stage.until_busy(0)
    stage.breaks(stage.VICTIM)
    stage.restart(stage.VICTIM)
    stage.until_back(stage.VICTIM)


def _poison(stage: Stage) -> None:
    """Whoever looks after the servers starts those that die, slower than lbrun notices, as real ones are.

    How many have died is the scenario's finding.
    """
    rows = [{"tok_input": [*range(100 + i, 140 + i)]} for i in range(256)]
    rows[_POISONOUS]["tok_input"][3] = 10**6
    data = stage.base / "poison.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for server in _ALL:
        stage.servers.have(server, "poison")
    stage.start(f"dataset.path={data}", "model.vocab_size=null")
    deaths = 0

    def restart_the_dead() -> bool:
        nonlocal deaths
        for server in _ALL:
            if not stage.servers.alive(server) and stage.is_out(server):
                deaths += 1
                stage.servers.restart(server)
                stage.until(lambda server=server: stage.servers.answers(server), "it answers")  # type: ignore[misc]
                stage.servers.resume(server)
        return deaths >= 2 and _has_failed(stage)

    stage.until(restart_the_dead, "two servers die of the poison, and the sample is given up")
    stage.linger(1.0)
    stage.notes["deaths"] = deaths + sum(not stage.servers.alive(server) for server in _ALL)


def _has_failed(stage: Stage) -> bool:
    return "not sent again" in (stage.folder / "lbrun.log").read_text(errors="replace")


def _only_the_poison_failed(evidence: Evidence) -> list[str]:
    failed = [row["sample_index"] for row in evidence.rows if row["failure"] is not None]
    problems = [] if set(failed) == {_POISONOUS} else [f"failed samples: {failed}"]
    deaths = evidence.notes["deaths"]
    return problems + ([] if deaths == 2 else [f"{deaths} servers died of it"])


SCENARIOS = (
    Scenario(
        name="sigkill",
        about="one of three servers is killed, and started again once it is out",
        act=_killed,
        expected=Expected(out_within_s=KILLED_OUT_WITHIN_S, back_within_s=BACK_WITHIN_S),
        quick=(Mode.OFFLINE,),
    ),
    Scenario(
        name="sigstop",
        about="one server is stopped, and goes on once it is out: its late answers count nowhere",
        act=_frozen,
        expected=Expected(out_within_s=HUNG_OUT_WITHIN_S, back_within_s=BACK_WITHIN_S),
        samples=_MANY,
    ),
    Scenario(
        name="sigstop_2_s",
        about="one server is stopped for 2 s and goes on: less than a stall, nobody is taken out",
        act=_frozen_for_a_moment,
        expected=Expected(stays_in=True),
    ),
    Scenario(
        name="rolling_restart",
        about="each server in turn is killed and started again at once",
        act=_rolling_restart,
        expected=Expected(back_within_s=BACK_WITHIN_S),
        samples=_MORE,
    ),
    Scenario(
        name="flapping",
        about="one server dies and returns every 2 s, four times",
        act=_flapping,
        samples=_MANY,
    ),
    Scenario(
        name="two_of_three_die",
        about="two servers are killed at once, and started again once they are out",
        act=_two_of_three_die,
        expected=Expected(out_within_s=KILLED_OUT_WITHIN_S, back_within_s=BACK_WITHIN_S),
    ),
    Scenario(
        name="all_die_and_return",
        about="all servers are killed at once, and return after 10 s",
        act=_all_die(_OUTAGE_S),
        expected=Expected(out_within_s=KILLED_OUT_WITHIN_S, back_within_s=BACK_WITHIN_S),
        samples=_MANY,
    ),
    Scenario(
        name="all_die_for_good",
        about="all servers are killed at once; grace time 5 s",
        act=_all_die(None),
        overrides=(f"servers.grace_s={_GRACE_S:g}",),
        expected=Expected(
            exit_status=frozenset({EXIT_FAILED}),
            lost=(1, None),
            out_within_s=KILLED_OUT_WITHIN_S,
            says=("All servers marked as failed",),
            ends_within_s=_GRACE_S + 5.0,
        ),
        quick=(Mode.OFFLINE,),
    ),
    Scenario(
        name="all_stop_and_go_on",
        about="all servers are stopped, and go on once all are out",
        act=_all_freeze,
        expected=Expected(out_within_s=HUNG_OUT_WITHIN_S, back_within_s=BACK_WITHIN_S),
        samples=_MANY,
    ),
    Scenario(
        name="all_stop_for_good",
        about="all servers are stopped and stay so; grace time 5 s",
        act=_all_freeze_for_good,
        overrides=(f"servers.grace_s={_GRACE_S:g}",),
        expected=Expected(
            exit_status=frozenset({EXIT_FAILED}),
            lost=(1, None),
            out_within_s=HUNG_OUT_WITHIN_S,
            says=("All servers marked as failed",),
            ends_within_s=HUNG_OUT_WITHIN_S + _GRACE_S + 5.0,
        ),
    ),
    Scenario(
        name="three_of_four_crash",
        about="three of four servers crash by themselves, each at another request: no sample is given up",
        act=_three_of_four_crash,
        servers={"count": 4},
        expected=Expected(),
        samples=512,
        target_qps=250.0,
    ),
    Scenario(
        name="back_with_another_model",
        about="one SGLang server is killed, and comes back with another model, which answers to any name",
        act=_back_with_another_model,
        servers={"backend": "sglang"},
        overrides=("servers.backend=sglang",),
        expected=Expected(out_within_s=KILLED_OUT_WITHIN_S),
        check=_swapped_server_stays_out,
        samples=_MANY,
    ),
    Scenario(
        name="dead_on_arrival",
        about="connections to one server are refused from the start; it is started in the middle of the run",
        act=_dead_on_arrival,
        overrides=("servers.settle_s=1",),
        samples=_MANY,
    ),
    Scenario(
        name="poison",
        about="one sample kills each server that it reaches (SGLang, token id outside the vocabulary)",
        act=_poison,
        servers={"backend": "sglang"},
        overrides=("servers.backend=sglang",),
        expected=Expected(
            exit_status=frozenset({EXIT_FAILED}),
            lost=(1, 1),
            says=("not sent again", "token ids of the data are not checked"),
        ),
        samples=256,
        target_qps=25.0,
        check=_only_the_poison_failed,
    ),
)
