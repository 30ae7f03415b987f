"""What changes of the served model mean for a run: which answers another model may have given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from lbrun.results.wording import duration, things


@dataclass(frozen=True, slots=True)
class ModelDoubts:
    """errors: make the run worthless. alerts: for the first lines of the summary. warnings: for its notes.

    told: what each server told of its model at the start. changed: what it told otherwise later.
    """

    errors: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    changed: Mapping[str, str] = field(default_factory=dict)


def model_doubts(models: Mapping[str, Any], records: Any) -> ModelDoubts:
    """Weigh what the test found (`lbrun.run.outcome.models_of`) against the records of its samples.

    LoadGen has logged every answer when it came. So a run in which another model may have answered is
    worthless, however few its answers are; a change that was found before any sample went there only takes
    the server out.
    """
    errors, alerts, warnings = [], list(models.get("differ", ())), list(models.get("notes", ()))
    for change in models.get("changes", ()):
        url, what, since_ns = change["server"], change["what"], change["since_ns"]
        n = _answered(records, url, since_ns, change["found_ns"])
        if n:
            errors.append(
                f"another model may have answered {things(n, 'sample')}: {url} {what}; "
                f"noticed after {duration((change['found_ns'] - since_ns) / 1e9)}"
            )
        alerts.append(
            f"{url} {what}: taken out of service, "
            + (f"{things(n, 'sample')} in doubt" if n else "before any sample went there")
        )
    for doubt in models.get("unverified", ()):
        n = _answered(records, doubt["server"], doubt["since_ns"])
        if n:
            warnings.append(
                f"{doubt['server']} did not report its model again after it had answered "
                f"{things(n, 'sample')}: whether these are of the first model is not verified"
            )
    for once in models.get("differed_once", ()):
        warnings.append(
            f"{once['server']} {once['what']}, a single time: do several servers answer at this URL?"
        )
    changed = {change["server"]: change["what"] for change in models.get("changes", ())}
    return ModelDoubts(tuple(errors), tuple(alerts), tuple(warnings), models.get("told", {}), changed)


def _answered(records: Any, url: str, since_ns: int, until_ns: int | None = None) -> int:
    """Samples whose answer is of a request that was sent there in that time."""
    sent = records.column("sent_ns")
    wanted = pc.and_(pc.is_null(records.column("failure")), pc.equal(records.column("server"), url))
    wanted = pc.and_(wanted, pc.greater_equal(sent, since_ns))
    if until_ns is not None:
        wanted = pc.and_(wanted, pc.less_equal(sent, until_ns))
    return int(pc.sum(wanted).as_py() or 0)
