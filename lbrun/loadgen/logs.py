"""What LoadGen says of a test, read from its summary and detail logs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

SUMMARY, DETAIL, ACCURACY = "mlperf_log_summary.txt", "mlperf_log_detail.txt", "mlperf_log_accuracy.json"
_GOOD_EARLY_STOPPING = ("early stopping:", "early stopping: Run successful.")
_FIELD = re.compile(r"^\s*(?P<key>[^:]+?)\s*:\s*(?P<value>\S.*?)\s*$")


@dataclass(frozen=True, slots=True)
class LoadGenResult:
    """valid: None where LoadGen gave no result (accuracy mode, or it did not end).

    fields: every ``key : value`` line of the summary, in order. reasons: the rules that were not met, with
    LoadGen's recommendations. errors: the log's errors, at most 20 different ones.
    """

    valid: bool | None
    fields: dict[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    error_count: int = 0


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
    errors, count = _read_errors(folder / DETAIL)
    return LoadGenResult(
        valid=None if result is None else result == "VALID",
        fields=fields,
        reasons=tuple(reason for reason in reasons if not reason.endswith(_GOOD_EARLY_STOPPING)),
        errors=errors,
        error_count=count,
    )


def _recommendations(summary: str) -> list[str]:
    """LoadGen's advice, a line for each: on a rule that was not met, and on what early stopping lacks."""
    _, _, block = summary.partition("\nRecommendations:")
    block = block.partition("\n=====")[0]
    advice: list[str] = []
    heading, begun = "", False
    for line in block.splitlines():
        if line.endswith("Early Stopping Result:"):
            heading = line.removesuffix(" Result:").replace("Early Stopping", "early stopping")
            begun = False
        elif line.startswith(" *") and not heading:
            advice.append(line.strip(" *"))
        elif line.startswith(" *") and not begun:
            # several points and their continuations make up one statement
            advice.append(f"{heading}: {line.strip(' *')}")
            begun = True
        elif line.strip() and advice:
            advice[-1] += " " + line.strip(" *")
    return [text for text in advice if "Run successful" not in text]


def _read_errors(path: Path) -> tuple[tuple[str, ...], int]:
    messages: dict[str, None] = {}
    count = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if '"is_error": true' not in line or not line.startswith(":::MLLOG "):
                    continue
                count += 1
                if len(messages) < 20:
                    try:
                        messages[str(json.loads(line[len(":::MLLOG ") :])["value"])] = None
                    except (ValueError, KeyError, TypeError):
                        messages[line.strip()[:200]] = None
    except OSError:
        pass
    return tuple(messages), count


def set_aside(folder: Path, suffix: str = "not-for-submission") -> None:
    """Rename the logs of a failed run, so that nobody submits them by mistake."""
    for name in (SUMMARY, DETAIL, ACCURACY):
        path = folder / name
        if path.exists():
            path.rename(path.with_name(f"{path.stem}.{suffix}{path.suffix}"))
