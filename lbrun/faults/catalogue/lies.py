"""Answers without an end, and answers that are well-formed and wrong, all with lbrun's default keys."""

from __future__ import annotations

from lbrun.errors import EXIT_FAILED
from lbrun.faults.catalogue.answers import from_the_start, until_out
from lbrun.faults.evidence import Evidence
from lbrun.faults.scenario import ANSWERED, BACK_WITHIN_S, HUNG_OUT_WITHIN_S, Expected, Mode, Scenario
from lbrun.faults.stage import Stage

_OUT_AND_BACK = Expected(out_within_s=HUNG_OUT_WITHIN_S, back_within_s=BACK_WITHIN_S)
_ENDLESS_OUT_WITHIN_S = 100.0
"""The default idle timeout is 60 s."""
_ACCURACY = ("mode=accuracy",)


def _endless(kind: str, about: str) -> Scenario:
    """One server begins answers and never ends them; the samples are answered by the others."""

    def act(stage: Stage) -> None:
        stage.start()
        stage.until_busy(stage.VICTIM)
        stage.strike(stage.VICTIM, kind)
        stage.until_out(stage.VICTIM)
        stage.servers.heal(stage.VICTIM)

    return Scenario(
        name=kind,
        about=f"{about}, health is fine",
        act=act,
        expected=Expected(out_within_s=_ENDLESS_OUT_WITHIN_S),
        samples=8192,
        target_qps=40.0,
        bound_s=240.0,
    )


def _lie(name: str, fault: str, about: str) -> Scenario:
    """One of three servers lies in its answers until it is out; then it is honest again."""
    return Scenario(name=name, about=about, act=until_out(fault), expected=_OUT_AND_BACK)


def _one_lie(stage: Stage) -> None:
    """One answer in a hundred of one server counts beyond 64 bits."""
    stage.servers.have(Stage.VICTIM, f"wrong_count={2**63}*0.01")
    stage.start()


def _some_refused(stage: Stage) -> None:
    for server in range(3):
        stage.servers.have(server, "status=400*0.3")
    stage.start(slow=False)


def _accuracy_log_is_set_aside(evidence: Evidence) -> list[str]:
    names = [path.name for path in (evidence.folder / "mlperf").glob("mlperf_log_accuracy*")]
    return (
        ["the accuracy log of a failed run has the name that is scored"]
        if names == ["mlperf_log_accuracy.json"]
        else []
    )


SCENARIOS = (
    _endless("comments_forever", "one server sends SSE comments or blanks and no answer"),
    _endless("interim_forever", "one server sends heads of status 102 and no answer"),
    _endless("error_forever", "the body of one server's error never ends"),
    _endless("tokens_forever", "one server goes on after max_tokens"),
    _lie("count_too_high", "wrong_count=1000", "one server counts 1,000 tokens where 128 were asked for"),
    _lie("count_beyond_int32", f"wrong_count={2**31}", "one server counts 2^31 tokens"),
    _lie("count_beyond_int64", f"wrong_count={2**63}", "one server counts 2^63 tokens"),
    _lie("count_of_30_digits", f"wrong_count={10**29}", "one server counts 10^29 tokens"),
    _lie("count_negative", "wrong_count=-5", "one server counts -5 tokens"),
    _lie("prompt_count_negative", "wrong_prompt_count=-5", "one server counts -5 prompt tokens"),
    _lie("extra_tokens", "extra_tokens=1000", "one server sends 1,000 tokens more than were asked for"),
    Scenario(
        name="ids_out_of_vocabulary",
        about="one server's token ids are none of the vocabulary; they must not reach the accuracy log",
        act=until_out("wrong_ids=9999999"),
        expected=Expected(out_within_s=HUNG_OUT_WITHIN_S),
        overrides=_ACCURACY,
        samples=256,
    ),
    Scenario(
        name="one_count_beyond_int64",
        about="one answer in a hundred of one server counts 2^63 tokens: no other answer is lost with it",
        act=_one_lie,
        expected=Expected(),
        quick=(Mode.OFFLINE,),
    ),
    Scenario(
        name="answer_twice",
        about="one server sends every tenth answer twice on its connection: no later answer is shifted",
        act=from_the_start("answer_twice=1*0.1", servers=(Stage.VICTIM,)),
        expected=Expected(),
    ),
    Scenario(
        name="accuracy_with_failures",
        about="accuracy mode, 30 % of the requests refused for good: LoadGen's log must hold the failed ones",
        act=_some_refused,
        expected=Expected(exit_status=frozenset({EXIT_FAILED}) | ANSWERED, lost=(0, None)),
        overrides=(*_ACCURACY, "servers.on_bad_request=continue"),
        samples=256,
        check=lambda evidence: _accuracy_log_is_set_aside(evidence) if evidence.lost else [],
    ),
    Scenario(
        name="accuracy",
        about="accuracy mode over healthy servers: every entry of LoadGen's log is the right answer",
        act=from_the_start(),
        expected=Expected(stays_in=True),
        overrides=_ACCURACY,
        samples=256,
    ),
)
