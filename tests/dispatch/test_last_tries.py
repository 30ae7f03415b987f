"""A sample under which two servers died: held back, tried last, and given up only on evidence."""

from __future__ import annotations

import asyncio

from dispatch_bench import bench, run
from scripted_server import Exchange, Script, kill, only_for, serve_well

from lbrun.dispatch.last_tries import HOLD_S, LastTries
from lbrun.dispatch.retry import History
from lbrun.dispatch.sample import OpenSample


def dying(budget: dict[int, int]) -> Script:
    """Dies under these samples, so many times in the whole pool; serves everything else."""

    async def script(exchange: Exchange) -> None:
        if budget.get(exchange.sample, 0) > 0:
            budget[exchange.sample] -= 1
            await kill(exchange)
        else:
            await serve_well(exchange)

    return script


def test_a_sample_that_met_two_deaths_by_chance_is_answered_in_the_end() -> None:
    """Three of four servers die by themselves, two of them under sample 5."""

    async def main() -> None:
        async with bench(*[dying({5: 2, 6: 1})] * 4) as b:
            rows = await b.serve(5, 6, *range(20, 60))
            assert not any(row.failure for row in rows)
            assert len(rows[0].path) == 3
            assert b.dispatcher.counts.failed == 0

    run(main())


def test_a_sample_that_kills_takes_three_servers_at_most_where_others_die_as_well() -> None:
    async def main() -> None:
        async def deadly(exchange: Exchange) -> None:
            await (kill(exchange) if exchange.sample == 5 else by_chance(exchange))

        by_chance = dying({6: 1})
        async with bench(*[deadly] * 6) as b:
            rows = await b.serve(5, 6, *range(20, 60))
            assert rows[0].failure
            assert sum(server.samples.count(5) for server in b.servers) <= 3
            assert b.dispatcher.counts.failed == 1
            (named,) = b.dispatcher.given_up
            assert "its attempts coincided with the death of" in named

    run(main())


def test_a_held_sample_is_resolved_when_the_run_is_interrupted() -> None:
    async def main() -> None:
        async with bench(*[only_for(5, kill)] * 4) as b:
            b.issue(5)
            await b.until(lambda: sum(server.samples.count(5) for server in b.servers) == 2)
            await asyncio.sleep(0)
            b.dispatcher.hold()
            await b.resolved()
            assert b.dispatcher.counts.failed == 1

    run(main())


# -- the decision


def history(*, deaths: int) -> History:
    return History(deaths=set(range(deaths)))


def test_a_sample_is_not_decided_on_before_the_pool_was_idle_for_a_moment() -> None:
    held = LastTries()
    sample = OpenSample(1, 5, 0, 1)
    held.hold(sample, 10.0)
    assert held.next(10.0 + HOLD_S / 2) is None
    assert held
    assert held.next(10.0 + HOLD_S) is sample
    assert not held


def test_a_last_try_wants_a_death_without_the_sample_and_is_given_once() -> None:
    held = LastTries()
    held.n_deaths = 2
    assert not held.deserves(history(deaths=2))
    held.n_deaths = 3
    met_two = history(deaths=2)
    assert held.deserves(met_two)
    met_two.had_last_try = True
    assert not held.deserves(met_two)
