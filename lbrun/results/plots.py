"""The report's plots as inline SVG that takes its colours from the page, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from lbrun.results.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Drawn in a colour nobody else uses and replaced by the page's own text colour.
_INK = "#010203"
_SERVER_COLOURS = (
    "#3b7dd8",
    "#e0803a",
    "#2a9d6f",
    "#c95a9e",
    "#8a6fd1",
    "#b59a2b",
    "#4ba3b5",
    "#d2564f",
)
_MARK_COLOURS = {"bad": "#d2564f", "good": "#2a9d6f", "other": "#8a8f98"}
_IDS = re.compile(r'(\bid="|url\(#|href="#)')
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.color": _INK,
    "legend.frameon": False,
}

Mark = tuple[float, str]
"""When (seconds since the run's start), and ``bad``, ``good`` or ``other``."""


def cumulative_svg(curves: Sequence[tuple[str, Any, Any]], name: str) -> str:
    """Distribution functions: (label, milliseconds, share up to there). name: unique on the page."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        largest, smallest = 0.0, np.inf
        for (label, values, shares), colour in zip(curves, _SERVER_COLOURS, strict=False):
            axes.plot(values, 100 * shares, color=colour, label=label, linewidth=1.6)
            positive = values[values > 0]
            if len(positive):
                largest, smallest = max(largest, positive.max()), min(smallest, positive.min())
        if largest > 20 * smallest:
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.set_xlabel("ms")
        axes.set_ylabel("samples, %")
        axes.set_ylim(0, 101)
        axes.legend(loc="lower right")
        return _svg(figure, name)


def over_time_svg(
    data: Timeline,
    series: Sequence[Any],
    servers: Sequence[str],
    label: str,
    marks: Sequence[Mark],
    name: str,
) -> str:
    """A quantity per server, stacked, with events as vertical lines. name: unique on the page."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        if len(servers) <= len(_SERVER_COLOURS):
            bands, labels = list(series), list(servers)
        else:  # more bands than an eye can tell apart
            bands, labels = [np.sum(series, axis=0)], [f"all {len(servers)} servers"]
        base = np.zeros(len(data.edges_s) - 1)
        for band, server, colour in zip(bands, labels, _SERVER_COLOURS, strict=False):
            axes.stairs(
                base + band, data.edges_s, baseline=base, fill=True, color=colour, alpha=0.75, label=server
            )
            base = base + band
        for at_s, kind in marks:
            axes.axvline(at_s, color=_MARK_COLOURS[kind], linewidth=1, linestyle=(0, (3, 2)))
        axes.set_xlim(data.edges_s[0], data.edges_s[-1])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds since the start")
        axes.set_ylabel(label)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        figure.legend(loc="outside upper center", ncols=4)
        return _svg(figure, name)


def _figure() -> tuple[Figure, Axes]:
    # Figure itself rather than pyplot: no global state, no display looked for.
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _svg(figure: Figure, name: str) -> str:
    out = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(
            out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]  # no XML prolog, no DOCTYPE with an address in it
    text = text.replace(_INK, "currentColor")
    # Ids are unique per plot only, and the page has several.
    return _IDS.sub(lambda match: f"{match[1]}{name}-", text)
