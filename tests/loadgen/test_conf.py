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
        "\ntarget_qps = 3\n*.*.qsl_rng_seed = 1\n"
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
    text, _ = merge_conf("m", "Offline", {"target_qps": 12.5, "qsl_rng_seed": 2085463073848966840}, [])
    assert "m.Offline.target_qps = 12.5\n" in text
    assert "m.Offline.qsl_rng_seed = 2085463073848966840\n" in text
