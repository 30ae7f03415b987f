"""A measured figure, its target, and the file that keeps figures for comparison."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1


class BenchmarkError(Exception):
    """A benchmark could not be carried out; says what happened."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number.

    key: its name in files, the same for ever. title: in words. value: in `unit`; less is better.
    target: it is met up to this; None for a figure that has none. samples: what `value` is the median of.
    note: what a reader must know to believe it.
    """

    key: str
    title: str
    value: float
    unit: str
    target: float | None = None
    samples: tuple[float, ...] = ()
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return None if self.target is None else self.value <= self.target


def median_figure(
    key: str, title: str, samples: Sequence[float], unit: str, target: float | None = None, note: str = ""
) -> Figure:
    """A figure from repeated measurements."""
    return Figure(key, title, statistics.median(samples), unit, target, tuple(samples), note)


@dataclass(slots=True)
class Report:
    """Figures of one run of the suite, with what they were measured on.

    failures: benchmarks that could not be carried out, by name, and why.
    """

    machine: Mapping[str, object]
    date: str
    settings: Mapping[str, object] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        document = {
            "schema": SCHEMA_VERSION,
            "date": self.date,
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            "seconds": self.seconds,
            "failures": self.failures,
            "figures": {
                figure.key: {k: v for k, v in asdict(figure).items() if k != "key"} | {"met": figure.met}
                for figure in self.figures
            },
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """A report from its file. Raises BenchmarkError where it is none."""
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        if document["schema"] != SCHEMA_VERSION:
            raise BenchmarkError(f"{path}: schema {document['schema']!r}, not {SCHEMA_VERSION}")
        figures = []
        for key, row in document["figures"].items():
            values = {k: v for k, v in row.items() if k != "met"}
            figures.append(Figure(key=key, **{**values, "samples": tuple(values["samples"])}))
        return Report(
            machine=document["machine"],
            date=document["date"],
            settings=document["settings"],
            figures=figures,
            failures=document["failures"],
            seconds=document["seconds"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{path}: not a report of this suite ({error})") from None


def ratios(new: Sequence[Figure], old: Sequence[Figure]) -> dict[str, float]:
    """New value over old, for each figure that both have; below 1 is better."""
    before = {figure.key: figure.value for figure in old}
    return {
        figure.key: figure.value / before[figure.key] for figure in new if before.get(figure.key, 0.0) > 0
    }
