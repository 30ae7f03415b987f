"""user.conf: what LoadGen would silently ignore is refused; the user's values win and are said to."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbrun.errors import ConfigError
from lbrun.loadgen.conf import merge_conf, read_user_conf


def test_lines_that_loadgen_would_pass_over_are_named_all_together(tmp_path: Path) -> None:
    path = tmp_path / "user.conf"
    path.write_text(
        "# mine\n*.Server.target_qps=20\nllama3_1-8b.Offline.min_duration = 600000 # fine\n"
        "\ntarget_qps = 3\n*.*.max_duration = 1\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_user_conf(path)
    assert len(caught.value.problems) == 2
    assert "line 2" in caught.value.problems[0]
    assert "space on both sides" in caught.value.problems[0]
    assert "line 5" in caught.value.problems[1]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scenario\.user_conf: cannot read .*nowhere"):
        read_user_conf(tmp_path / "nowhere")


def test_the_users_value_wins_over_the_configured_one_and_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "user.conf"
    path.write_text("*.Server.target_qps = 20\ngpt-oss-120b.Server.min_duration = 7\n")
    text, overridden = merge_conf(
        "llama3_1-8b", "Server", {"target_qps": 5.0, "min_duration": 600000}, read_user_conf(path)
    )
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        "llama3_1-8b.Server.min_duration = 600000",
        "llama3_1-8b.Server.target_qps = 20",
        "gpt-oss-120b.Server.min_duration = 7",
    ]
    assert overridden == ["user.conf sets target_qps to 20, in place of 5"]


def test_values_are_written_so_that_loadgen_reads_them() -> None:
    text, _ = merge_conf("m", "Offline", {"target_qps": 12.5, "min_duration": 604800000}, [])
    assert "m.Offline.target_qps = 12.5\n" in text
    assert "m.Offline.min_duration = 604800000\n" in text


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("*.Offline.min_durtion = 1000", "it has no such key; did you mean min_duration?"),
        ("*.Offline.xyzzy = 1", "it has no such key"),
        ("*.offline.min_duration = 1", "its scenarios are *, Offline, Server, SingleStream, MultiStream"),
        ("*.*.qsl_rng_seed = 7", "write scenario.qsl_seed=7 instead"),
    ],
)
def test_keys_that_loadgen_does_not_take_from_a_user_conf_are_refused(
    tmp_path: Path, line: str, instead: str
) -> None:
    path = tmp_path / "user.conf"
    path.write_text(line)
    with pytest.raises(ConfigError) as caught:
        read_user_conf(path)
    (problem,) = caught.value.problems
    assert "line 1: LoadGen would ignore" in problem
    assert problem.endswith(instead)


def test_a_file_for_other_tests_only_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "user.conf"
    path.write_text("llama2-70b.Server.target_qps = 20\n")
    _, told = merge_conf("llama3_1-8b", "Server", {}, read_user_conf(path))
    assert told == ["scenario.user_conf: no line of it applies to llama3_1-8b.Server"]
