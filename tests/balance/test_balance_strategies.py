"""Each strategy's distribution: exact where deterministic, within a chi-square bound where not."""

from __future__ import annotations

import sys
import types
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrun.attempt import FailureKind
from lbrun.balance import STRATEGIES, BaseStrategy, Pool, PoolSettings, ProbeOutcome, make_strategy
from lbrun.errors import ConfigError, RunFailed

CHI_SQUARE_9_DF = 27.88  # exceeded by chance once in 1,000; the seeds are fixed, so the tests are steady


def ready_pool(
    name: str,
    n: int,
    *,
    seed: int = 0,
    weights: Sequence[float] | None = None,
    bound: int | None = None,
) -> Pool:
    settings = PoolSettings([f"http://{i}" for i in range(n)], max_in_flight=bound, weights=weights)
    return made_ready(Pool(settings, make_strategy(name, seed=seed), now_s=0.0))


def made_ready(pool: Pool) -> Pool:
    for now_s in (0.0, 1.0):
        for probe in pool.due_probes(now_s):
            pool.probe_result(probe, ProbeOutcome.OK, "", now_s)
    return pool


def pick(pool: Pool, tokens: int = 1) -> int:
    server = pool.acquire(tokens)
    assert server is not None
    return server


def picks(pool: Pool, count: int) -> list[int]:
    """One attempt after the other, each ended before the next."""
    picked = []
    for _ in range(count):
        server = pick(pool)
        pool.release(server, 1)
        picked.append(server)
    return picked


def test_round_robin_takes_each_server_in_turn() -> None:
    assert picks(ready_pool("round_robin", 3), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_round_robin_keeps_its_turn_when_a_server_leaves_and_returns() -> None:
    pool = ready_pool("round_robin", 4)
    assert picks(pool, 2) == [0, 1]
    pool.exclude(2, "test", 2.0)
    assert picks(pool, 4) == [3, 0, 1, 3]


def test_round_robin_sends_a_retry_to_the_next_candidate() -> None:
    pool = ready_pool("round_robin", 4)
    assert pick(pool) == 0
    assert pool.acquire(1, exclude={1, 2}) == 3
    assert pick(pool) == 0


def test_random_is_even() -> None:
    counts = Counter(picks(ready_pool("random", 10, seed=7), 10_000))
    assert sum((counts[i] - 1000) ** 2 / 1000 for i in range(10)) < CHI_SQUARE_9_DF


@pytest.mark.parametrize("name", ["random", "power_of_two", "peak_ewma"])
def test_drawing_lots_is_repeatable_with_the_seed_and_differs_without(name: str) -> None:
    first, again, other = (picks(ready_pool(name, 10, seed=seed), 50) for seed in (3, 3, 4))
    assert first == again != other


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_weighted_is_exactly_proportional_over_a_cycle(weights: list[int]) -> None:
    pool = ready_pool("weighted", len(weights), weights=[float(w) for w in weights])
    for _ in range(3):
        counts = Counter(picks(pool, sum(weights)))
        assert [counts[i] for i in range(len(weights))] == weights


@pytest.mark.parametrize(
    ("weights", "cycle"), [([2.0, 1.0], [0, 1, 0]), ([3.0, 1.0], [0, 0, 1, 0]), ([1.0, 4.0], [1, 1, 0, 1, 1])]
)
def test_weighted_spreads_the_turns_over_the_cycle(weights: list[float], cycle: list[int]) -> None:
    picked = picks(ready_pool("weighted", 2, weights=weights), 2 * len(cycle))
    assert Counter(picked[: len(cycle)]) == Counter(cycle)
    assert picked.index(weights.index(1.0)) not in (0, len(cycle) - 1)


def test_weighted_does_not_make_up_for_absence_in_a_burst() -> None:
    pool = ready_pool("weighted", 2, weights=[1.0, 1.0])
    pool._pauses.add(1, 50.0)
    pool._update_limit(1, 2.0)
    assert set(picks(pool, 100)) == {0}
    pool.tick(51.0)
    assert Counter(picks(pool, 20)) == {0: 10, 1: 10}


@pytest.mark.parametrize("name", ["least_outstanding", "least_tokens"])
def test_least_loaded_takes_turns_among_equals(name: str) -> None:
    assert picks(ready_pool(name, 3), 6) == [0, 1, 2, 0, 1, 2]


def test_least_tokens_counts_tokens_and_not_attempts() -> None:
    pool = ready_pool("least_tokens", 2)
    assert pick(pool, 1000) == 0
    assert [pick(pool, 100) for _ in range(9)] == [1] * 9


def test_least_outstanding_counts_attempts_and_not_tokens() -> None:
    pool = ready_pool("least_outstanding", 2)
    assert pick(pool, 1000) == 0
    assert [pick(pool, 100) for _ in range(3)] == [1, 0, 1]


def test_power_of_two_balances_far_better_than_random() -> None:
    def spread(name: str) -> int:
        pool = ready_pool(name, 100, seed=1)
        for _ in range(5000):
            pick(pool)
        return max(pool.in_flight) - min(pool.in_flight)

    assert spread("power_of_two") <= 6 < spread("random")


def test_peak_ewma_shuns_a_slow_server_and_forgives_it() -> None:
    pool = ready_pool("peak_ewma", 2)
    for server, ttft_s in ((0, 0.1), (1, 1.0)):
        pool.succeeded(server, 1.0, ttft_s)
    assert Counter(picks(pool, 100)) == {0: 100}
    for second in range(2, 100):
        pool.succeeded(1, float(second), 0.05)
    assert Counter(picks(pool, 100)) == {1: 100}


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), st.integers(1, 2000)),
        st.tuples(st.just("release"), st.integers(0, 10**6)),
        st.tuples(st.just("pause"), st.integers(0, 7)),
        st.tuples(st.just("wait"), st.integers(1, 3)),
        st.tuples(st.just("retry"), st.sets(st.integers(0, 7), min_size=1)),
    ),
    max_size=80,
)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@settings(max_examples=60)
@given(n=st.integers(1, 8), bound=st.none() | st.integers(1, 3), events=EVENTS)
def test_every_strategy_keeps_to_eligible_servers_under_churn(
    name: str, n: int, bound: int | None, events: list[tuple[str, object]]
) -> None:
    """Full, paused and returning servers: picks agree with a model that works everything out anew."""
    pool = ready_pool(name, n, bound=bound)
    now_s, open_, paused_until = 2.0, list[tuple[int, int]](), dict[int, float]()
    for event, value in events:
        eligible = [
            s
            for s in range(n)
            if s not in paused_until and (bound is None or [o[0] for o in open_].count(s) < bound)
        ]
        assert pool.eligible == eligible
        if event in ("acquire", "retry"):
            tokens = value if isinstance(value, int) else 5
            excluded = value if isinstance(value, set) else set()
            candidates = [s for s in eligible if s not in excluded]
            server = pool.acquire(tokens, excluded)
            assert (server in candidates) if candidates else (server is None)
            if server is None:
                continue
            if name == "least_outstanding":
                loads = Counter(s for s, _ in open_)
                assert loads[server] == min(loads[s] for s in candidates)
            if name == "least_tokens":
                sums = {s: sum(t for o, t in open_ if o == s) for s in candidates}
                assert sums[server] == min(sums.values())
            open_.append((server, tokens))
        elif event == "release" and open_:
            assert isinstance(value, int)
            server, tokens = open_.pop(value % len(open_))
            pool.release(server, tokens)
        elif event == "pause" and isinstance(value, int) and value < n:
            pool.failed_attempt(value, FailureKind.HTTP_429, now_s, started_s=now_s, retry_after_s=2.0)
            paused_until[value] = now_s + 2.0
        elif event == "wait":
            assert isinstance(value, int)
            now_s += value
            pool.tick(now_s)
            paused_until = {s: end for s, end in paused_until.items() if end > now_s}
    for server, tokens in open_:
        pool.release(server, tokens)
    assert pool.in_flight == pool.tokens_in_flight == [0] * n


@pytest.mark.parametrize("name", ["weighted", "least_outstanding", "least_tokens"])
def test_heaps_do_not_grow_with_the_number_of_attempts(name: str) -> None:
    pool = ready_pool(name, 5)
    held = [pick(pool) for _ in range(20)]
    for i in range(5000):
        pool.release(held[i % 20], 1)
        held[i % 20] = pick(pool) if i % 3 else pool.acquire(1, {i % 5}) or 0
    strategy = pool.strategy
    assert len(strategy._heap) <= 4 * 5 + 65  # type: ignore[attr-defined]


def test_every_name_makes_its_strategy() -> None:
    assert {name: make_strategy(name).name for name in STRATEGIES} == {name: name for name in STRATEGIES}


class Fixed(BaseStrategy):
    """A user's strategy with nothing but `pick`."""

    def __init__(self, server: int = 0) -> None:
        self.server = server

    def pick(self, tokens: int) -> int:
        return self.server


class Needy(Fixed):
    def __init__(self, speed: float) -> None:
        super().__init__()
        self.pause_s = 1 / speed


class NoTokens(BaseStrategy):
    def pick(self) -> int:  # type: ignore[override]
        return 0


THEIRS: dict[str, object] = {"allowed_packages": ["their_strategies"]}


@pytest.fixture
def user_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("their_strategies")
    module.Fixed, module.Needy, module.NoTokens = Fixed, Needy, NoTokens  # type: ignore[attr-defined]
    module.NoStrategy = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_strategies", module)
    return module


@pytest.mark.usefixtures("user_module")
def test_a_strategy_of_the_users_own_needs_only_pick() -> None:
    strategy = make_strategy(
        "", target="their_strategies.Fixed", params={"server": 1}, allowed_packages=["their_strategies"]
    )
    pool = made_ready(Pool(PoolSettings(["http://a", "http://b"]), strategy, now_s=0.0))
    assert pool.acquire(1) == 1
    assert pool.acquire(1, exclude={1}) == 0


@pytest.mark.parametrize("server", [-1, 2, 1, "a", None])
def test_a_pick_that_is_not_eligible_breaks_the_run_by_name(server: object) -> None:
    strategy = Fixed(server)  # type: ignore[arg-type]
    pool = made_ready(Pool(PoolSettings(["http://a", "http://b"]), strategy, now_s=0.0))
    pool.exclude(1, "test", 1.0)
    with pytest.raises(RunFailed, match=r"strategy 'custom' picked .* must return one of view.eligible"):
        pool.acquire(1)
    assert pool.in_flight == [0, 0]


def test_a_pick_that_raises_breaks_the_run_by_name() -> None:
    class Broken(Fixed):
        def pick(self, tokens: int) -> int:
            raise ZeroDivisionError("division by zero")

    pool = made_ready(Pool(PoolSettings(["http://a", "http://b"]), Broken(), now_s=0.0))
    for exclude in ((), (0,)):
        with pytest.raises(RunFailed, match="strategy 'custom' broke: ZeroDivisionError: division by zero"):
            pool.acquire(1, exclude=exclude)
    assert pool.in_flight == [0, 0]


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fastest", {}, "no strategy 'fastest'; write one of round_robin, random"),
        (
            "",
            {"target": "os.path.join"},
            r"not in an allowed package \(lbrun\).*'allowed_packages=\[lbrun,os\]'",
        ),
        ("", {"target": "lbrunner.X"}, "not in an allowed package"),
        ("", {"target": "Fixed"}, "write package.module.Class"),
        ("", {"target": "lbrun.a-b.X"}, "write package.module.Class"),
        ("", {"target": "lbrun.nowhere.X"}, "'lbrun.nowhere' cannot be imported: ModuleNotFoundError"),
        ("", {"target": "lbrun.balance.Nothing"}, "'lbrun.balance' has no 'Nothing'"),
        ("", {"target": "lbrun.balance.Pool"}, "derives from lbrun.balance.BaseStrategy"),
        ("", {"target": "lbrun.balance.BaseStrategy"}, "derives from lbrun.balance.BaseStrategy"),
        ("round_robin", {"params": {"speed": 3}}, "RoundRobin refuses speed=3"),
        ("", THEIRS | {"target": "their_strategies.NoTokens"}, r"has pick\(self, tokens\) -> int"),
        (
            "",
            THEIRS | {"target": "their_strategies.Needy"},
            "Needy cannot be made without parameters: .* 'speed'; it takes speed$",
        ),
        (
            "",
            THEIRS | {"target": "their_strategies.Needy", "params": {"speed": 0}},
            "Needy refuses speed=0: ZeroDivisionError: division by zero; it takes speed$",
        ),
        ("peak_ewma", {"params": {"decay_s": 0}}, "decay_s must be above 0 seconds"),
    ],
)
def test_a_strategy_that_cannot_be_made_says_what_to_write(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_strategy(name, **options)  # type: ignore[arg-type]


def test_settings_of_a_pool_report_all_problems_together() -> None:
    with pytest.raises(ConfigError) as caught:
        PoolSettings(["http://a", "http://b"], max_in_flight=0, weights=[1.0, -1.0, float("nan")])
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "servers.max_in_flight",
        "servers.weights",
        "servers.weights[1]",
        "servers.weights[2]",
    ]
