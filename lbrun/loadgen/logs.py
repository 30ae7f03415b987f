"""What LoadGen says of a test, read from its summary and detail logs."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SUMMARY, DETAIL, ACCURACY = "mlperf_log_summary.txt", "mlperf_log_detail.txt", "mlperf_log_accuracy.json"
_GOOD_EARLY_STOPPING = ("early stopping:", "early stopping: Run successful.")
_SUMMARY_END = re.compile(r"errors? encountered", re.I)
_DETAIL_END = '"key": "power_end"'
"""All that follows it are results, and every test has it."""
_MAX_ERRORS = 20
_OTHERS = "other errors"
_FIELD = re.compile(r"^\s*(?P<key>[^:]+?)\s*:\s*(?P<value>\S.*?)\s*$")


@dataclass(frozen=True, slots=True)
class LoadGenResult:
    """valid: None where LoadGen gave no result (accuracy mode, or it did not end).

    fields: every ``key : value`` line of the summary, in order. reasons: the rules that were not met, with
    LoadGen's recommendations. errors: the log's errors, at most 20 different ones, with how often they came.
    cut: names of logs that lack their end, which a finished test has written.
    """

    valid: bool | None
    fields: dict[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    error_count: int = 0
    cut: tuple[str, ...] = ()


def read_logs(folder: Path) -> LoadGenResult:
    """Read the logs of one test; a missing file counts as a test that did not end."""
    try:
        summary = (folder / SUMMARY).read_text(encoding="utf-8", errors="replace")
    except OSError:
        summary = ""
    fields: dict[str, str] = {}
    reasons: list[str] = []
    in_recommendations = in_early_stopping = False
    for line in summary.splitlines():
        if line.startswith("Recommendations"):
            in_recommendations = True
        elif in_recommendations and line.endswith("Early Stopping Result:"):
            in_early_stopping = True
            reasons.append(line.replace("Early Stopping Result", "early stopping"))
        elif in_recommendations and line.startswith(" *") and not in_early_stopping:
            reasons.append(line.strip(" *"))
        elif in_recommendations and reasons and line.startswith(" "):
            # one statement in several points, which are wrapped
            reasons[-1] += " " + line.strip(" *")
        elif match := _FIELD.match(line):
            in_recommendations = False
            key, value = match["key"], match["value"]
            fields[key] = value
            if value == "NO" and key.endswith("satisfied"):
                reasons.append(f"{key.removesuffix(' satisfied').lower()}: not met")
    result = fields.get("Result is")
    errors, has_end = _read_detail(folder / DETAIL)
    cut = [] if _SUMMARY_END.search(summary) else [SUMMARY]
    if not has_end:
        cut.append(DETAIL)
    return LoadGenResult(
        valid=None if result is None else result == "VALID",
        fields=fields,
        reasons=tuple(reason for reason in reasons if not reason.endswith(_GOOD_EARLY_STOPPING)),
        errors=tuple(text if n == 1 else f"{text} ({n:,} times)" for text, n in errors.items()),
        error_count=errors.total(),
        cut=tuple(cut),
    )


def _read_detail(path: Path) -> tuple[Counter[str], bool]:
    """How often the log has each error, and whether it has its end."""
    messages: Counter[str] = Counter()
    has_end = False
    line = ""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                has_end = has_end or _DETAIL_END in line
                if '"is_error": true' in line and line.startswith(":::MLLOG "):
                    message = _error_text(line)
                    messages[message if message in messages or len(messages) < _MAX_ERRORS else _OTHERS] += 1
    except OSError:
        pass
    return messages, has_end and line.endswith("\n")


def _error_text(line: str) -> str:
    try:
        return str(json.loads(line[len(":::MLLOG ") :])["value"])
    except (ValueError, KeyError, TypeError):
        return line.strip()[:200]


def set_aside(folder: Path, suffix: str = "not-for-submission") -> None:
    """Rename the logs of a failed run, so that nobody submits them by mistake."""
    for name in (SUMMARY, DETAIL, ACCURACY):
        path = folder / name
        if path.exists():
            path.rename(path.with_name(f"{path.stem}.{suffix}{path.suffix}"))
