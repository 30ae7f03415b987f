"""Warnings that come by the thousand, shown so that they can be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Repeat:
    text: str
    since_s: float
    n: int = 0


class RepeatFilter:
    """Lets a warning through at once, and its repetitions as one counted line per interval.

    Pure: the time is passed in, seconds of any monotonic clock. interval_s: from one line about a matter
    to the next.
    """

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._repeats: dict[str, _Repeat] = {}

    def offer(self, key: str, text: str, now_s: float) -> str | None:
        """The text to show now, None where it is only counted. key: what makes two warnings the same."""
        repeat = self._repeats.get(key)
        if repeat is None:
            self._repeats[key] = _Repeat(text, now_s)
            return text
        repeat.n += 1
        repeat.text = text
        return self._report(repeat, now_s) if now_s - repeat.since_s >= self._interval_s else None

    def due(self, now_s: float, *, everything: bool = False) -> list[str]:
        """The counted lines whose time has come; everything: also the others (the end of a run).

        A matter that was quiet for an interval is forgotten, and is let through at once next time.
        """
        lines = []
        for key, repeat in list(self._repeats.items()):
            if not everything and now_s - repeat.since_s < self._interval_s:
                continue
            if repeat.n:
                lines.append(self._report(repeat, now_s))
            else:
                del self._repeats[key]
        return lines

    @staticmethod
    def _report(repeat: _Repeat, now_s: float) -> str:
        passed_s = now_s - repeat.since_s
        line = f"{repeat.text} ({repeat.n:,} more like it in {passed_s:.0f} s)"
        repeat.n, repeat.since_s = 0, now_s
        return line
