"""Answers that break: on the wire, in HTTP, in SSE or in what they say; and good ones that come oddly."""

from __future__ import annotations

from collections.abc import Callable

from lbrun.faults.evidence import Evidence
from lbrun.faults.scenario import BACK_WITHIN_S, HUNG_OUT_WITHIN_S, Expected, Mode, Scenario
from lbrun.faults.stage import Stage

_OUT_AND_BACK = Expected(out_within_s=HUNG_OUT_WITHIN_S, back_within_s=BACK_WITHIN_S)
_STAYS = Expected(stays_in=True)
_IMPATIENT = ("client.idle_timeout_s=2", "scenario.first_byte_timeout_s=3")
_SMALL_ANSWERS = ("client.max_answer_mib=1",)
_MANY = 2048


def until_out(*faults: str, and_back: bool = True) -> Callable[[Stage], None]:
    """One of three servers fails in this way until it is taken out; then it is well again, and comes back.

    and_back: wait for that. Not for refusals: when a server that refuses everything at once is out, most of
    the samples have been there, and none of them goes there again.
    """

    def act(stage: Stage) -> None:
        stage.start()
        stage.until_busy(stage.VICTIM)
        stage.strike(stage.VICTIM, *faults)
        stage.until_out(stage.VICTIM)
        if and_back:
            stage.heal(stage.VICTIM)
            stage.until_back(stage.VICTIM)

    return act


def from_the_start(*faults: str, servers: tuple[int, ...] = (0, 1, 2)) -> Callable[[Stage], None]:
    """These servers are like this for the whole run."""

    def act(stage: Stage) -> None:
        for server in servers:
            stage.servers.have(server, *faults)
        stage.start(slow=False)

    return act


def _failed_as(*kinds: str) -> Callable[[Evidence], list[str]]:
    """The fault was met as what it is, so that the scenario has tested what it says."""

    def check(evidence: Evidence) -> list[str]:
        met = {
            attempt["failure"]
            for row in evidence.rows
            for attempt in row["attempts"] or ()
            if attempt["server"] == evidence.urls[Stage.VICTIM]
        }
        return (
            [] if met & set(kinds) else [f"no attempt failed as {' or '.join(kinds)}, but as {met or 'none'}"]
        )

    return check


def _nothing_but_stale_connections(evidence: Evidence) -> list[str]:
    met = {attempt["failure"] for row in evidence.rows for attempt in row["attempts"] or ()}
    wrong = met - {None, "STALE_CONNECTION"}
    return [f"attempts failed as {wrong}"] if wrong else []


def _breaking(
    name: str,
    about: str,
    *kinds: str,
    fault: str = "",
    overrides: tuple[str, ...] = (),
    samples: int = 1024,
    modes: tuple[Mode, ...] = (Mode.OFFLINE, Mode.SERVER),
    quick: tuple[Mode, ...] = (),
) -> Scenario:
    return Scenario(
        name=name,
        about=about,
        act=until_out(fault or name),
        expected=_OUT_AND_BACK,
        check=_failed_as(*kinds),
        overrides=overrides,
        samples=samples,
        modes=modes,
        quick=quick,
    )


SCENARIOS = (
    _breaking(
        "hang_before_headers",
        "requests are read and never answered, health is fine; first-byte timeout 3 s",
        "FIRST_BYTE_TIMEOUT",
        overrides=_IMPATIENT,
        samples=_MANY,
    ),
    _breaking(
        "hang_in_body",
        "half of each answer comes, then nothing; idle timeout 2 s",
        "IDLE_TIMEOUT",
        overrides=_IMPATIENT,
        samples=_MANY,
    ),
    _breaking(
        "reset_before_headers",
        "RST instead of an answer, health is fine",
        "LOST_BEFORE_BYTE",
        "STALE_CONNECTION",
    ),
    _breaking("reset_mid_stream", "half of each answer, then RST", "CUT", quick=(Mode.SERVER,)),
    _breaking(
        "eof_no_end_mark",
        "streams end well in HTTP, without finish reason and [DONE]",
        "NO_END_MARK",
        modes=(Mode.SERVER,),
    ),
    _breaking("wrong_length", "fewer bytes than announced, then FIN", "CUT", "MALFORMED"),
    _breaking("malformed_sse", "bytes that are neither events nor JSON", "MALFORMED"),
    _breaking("truncated_json", "well-formed HTTP, JSON that stops in the middle", "MALFORMED"),
    _breaking("error_in_200", "status 200, and an error object is all it says", "ERROR_IN_ANSWER"),
    _breaking(
        "error_event_then_done",
        "a dying vLLM: half of a stream, an error event, then [DONE]; whole answers become 500",
        "ERROR_IN_ANSWER",
        "HTTP_5XX",
        quick=(Mode.SERVER,),
    ),
    _breaking("empty_body", "status 200 without a byte", "EMPTY_ANSWER", "MALFORMED", "NO_END_MARK"),
    _breaking("oversized_head", "headers without an end", "TOO_LARGE", "MALFORMED", overrides=_SMALL_ANSWERS),
    _breaking(
        "oversized_line",
        "a body, or a line of a stream, without an end; limit 1 MiB",
        "TOO_LARGE",
        overrides=_SMALL_ANSWERS,
    ),
    _breaking("compressed", "a gzip bomb, though nobody asked for compression", "MALFORMED"),
    Scenario(
        name="slow_headers",
        about="heads come 16 bytes at a time, 50 ms between them, from all servers",
        act=from_the_start("slow_headers"),
        expected=_STAYS,
        samples=512,
    ),
    Scenario(
        name="slow_body",
        about="bodies trickle in pieces, 20 ms between them, from all servers",
        act=from_the_start("slow_body"),
        expected=_STAYS,
        samples=512,
    ),
    Scenario(
        name="split_packets",
        about="packets end within events and within UTF-8 characters, from all servers",
        act=from_the_start("split_packets"),
        expected=_STAYS,
        overrides=("model.payload=text",),
        samples=512,
        quick=(Mode.SERVER,),
    ),
    Scenario(
        name="idle_connections_closed",
        about="all servers close connections that were idle for 50 ms, as often as not while a request comes",
        act=from_the_start(),
        expected=_STAYS,
        servers={"keep_alive_s": 0.05},
        modes=(Mode.SERVER,),
        check=_nothing_but_stale_connections,
    ),
    Scenario(
        name="slow_server_round_robin",
        about="one of three servers is ten times slower, and gets as much as the others",
        act=from_the_start("slow_factor=10", servers=(Stage.VICTIM,)),
        expected=_STAYS,
        servers={"ttft_base_ms": 20.0, "tpot_ms": 2.0},
        samples=512,
    ),
    Scenario(
        name="slow_server",
        about="one of three servers is ten times slower than the others",
        act=from_the_start("slow_factor=10", servers=(Stage.VICTIM,)),
        expected=_STAYS,
        servers={"ttft_base_ms": 20.0, "tpot_ms": 2.0},
        overrides=("strategy=least_outstanding",),
    ),
)
