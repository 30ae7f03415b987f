"""Whether a server still serves what it served at the start. Pure comparisons of what servers tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from lbrun.balance.models import Fact, ModelInfo

_NAMED_AT_MOST = 5


def difference(before: ModelInfo, now: ModelInfo) -> str:
    """What the server reports otherwise than before, in words; "" if nothing.

    Only what could be read both times is compared.
    """
    changed = [name for name, value in before.facts.items() if name in now.facts and now.facts[name] != value]
    if not changed:
        return ""
    return f"reports {_in_words(now.facts, changed)} (at the start: {_in_words(before.facts, changed)})"


def merged(before: ModelInfo | None, now: ModelInfo) -> ModelInfo:
    """What is known of a server that tells the same as before, and perhaps more."""
    if before is None:
        return now
    return before._replace(facts={**now.facts, **before.facts})


def disagreements(infos: Mapping[int, ModelInfo], urls: Sequence[str]) -> list[str]:
    """Where servers of one pool report different things: the value of most of them, and who differs."""
    found = []
    for name in dict.fromkeys(name for info in infos.values() for name in info.facts):
        told = {server: info.facts[name] for server, info in infos.items() if name in info.facts}
        counted = Counter(told.values()).most_common()
        if len(counted) < 2:
            continue
        usual = counted[0][0]
        others = [
            f"{_in_words({name: value}, [name])} at {_named([urls[s] for s in told if told[s] == value])}"
            for value, _ in counted[1:_NAMED_AT_MOST]
        ]
        found.append(
            f"the servers differ: {_in_words({name: usual}, [name])} at {counted[0][1]} of {len(told)}, "
            + ", ".join(others)
        )
    return found


def notes(infos: Mapping[int, ModelInfo], urls: Sequence[str]) -> list[str]:
    """What could not be checked of the servers' models, in words, with who it is true of."""
    told: dict[str, list[str]] = {}
    for server, info in infos.items():
        if info.note:
            told.setdefault(info.note, []).append(urls[server])
    return [f"{_named(where)}: {note}" for note, where in told.items()]


def _in_words(facts: Mapping[str, Fact], names: Sequence[str]) -> str:
    return ", ".join(f"no {name}" if facts[name] is None else f"{name} {facts[name]!r}" for name in names)


def _named(urls: Sequence[str]) -> str:
    shown = ", ".join(urls[:_NAMED_AT_MOST])
    more = len(urls) - _NAMED_AT_MOST
    return f"{shown} and {more} more" if more > 0 else shown
