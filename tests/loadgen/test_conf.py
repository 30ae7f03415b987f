"""user.conf: what LoadGen would silently ignore is refused; the user's values win and are said to."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbrun.errors import ConfigError
from lbrun.loadgen.conf import effective, merge_conf, read_audit_conf, read_user_conf


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


def user_conf(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "user.conf"
    path.write_text(text)
    return path


def test_the_users_value_wins_over_the_configured_one_and_is_reported(tmp_path: Path) -> None:
    path = user_conf(tmp_path, "*.Server.target_qps = 20\ngpt-oss-120b.Server.min_duration = 7\n")
    text, notes = merge_conf(
        "llama3_1-8b", "Server", {"target_qps": 5.0, "min_duration": 600000}, read_user_conf(path)
    )
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == ["llama3_1-8b.Server.min_duration = 600000", "*.Server.target_qps = 20"]
    assert notes == ["user.conf sets target_qps to 20, in place of 5"]


def test_of_several_lines_the_most_specific_counts_and_the_last_of_equals(tmp_path: Path) -> None:
    path = user_conf(
        tmp_path,
        "m.Offline.min_duration = 600000\n*.Offline.min_duration = 4\n*.*.min_duration = 5\n"
        "*.*.max_duration = 1\n*.*.max_duration = 2\nm.*.min_query_count = 3\n"
        "*.Offline.min_query_count = 9\nm.Server.target_qps = 1\n",
    )
    assert effective(read_user_conf(path), "m", "Offline") == {
        "min_duration": "600000",
        "max_duration": "2",
        "min_query_count": "9",
    }


@pytest.mark.parametrize("value", ["6e5", "600000.5", "0600", "0x10", "-5", "99999999999999999999", "fast"])
def test_numbers_that_loadgen_would_misread_are_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"line 2: .*write"):
        read_user_conf(user_conf(tmp_path, f"*.*.max_duration = 5 # fine\n*.*.min_duration = {value}\n"))


def test_what_is_not_for_a_user_conf_to_set_is_refused_with_the_place_for_it(tmp_path: Path) -> None:
    path = user_conf(tmp_path, "*.*.mode = 1\n*.*.accuracy_log_sampling_target = 100\n")
    with pytest.raises(ConfigError) as caught:
        read_user_conf(path)
    assert "mode=accuracy" in caught.value.problems[0]
    assert "scenario.audit_conf" in caught.value.problems[1]


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
    with pytest.raises(ConfigError) as caught:
        read_user_conf(user_conf(tmp_path, line))
    (problem,) = caught.value.problems
    assert "line 1: LoadGen would ignore" in problem
    assert problem.endswith(instead)


def test_a_file_for_other_tests_only_is_told_of(tmp_path: Path) -> None:
    path = user_conf(tmp_path, "llama2-70b.Server.target_qps = 20\n*.MultiStream.samples_per_query = 8\n")
    text, told = merge_conf("llama3_1-8b", "Server", {}, read_user_conf(path))
    assert told == ["scenario.user_conf: no line of it applies to llama3_1-8b.Server"]
    assert "=" not in text


def test_values_are_written_so_that_loadgen_reads_them() -> None:
    text, _ = merge_conf("m", "Offline", {"target_qps": 12.5, "min_query_count": 2085463073848966840}, [])
    assert "m.Offline.target_qps = 12.5\n" in text
    assert "m.Offline.min_query_count = 2085463073848966840\n" in text


TEST09 = """\
# mode dictionary
*.*.mode = 2
*.*.accuracy_log_sampling_target = 10000
*.*.test09_min_output_tokens = 1150.38 # 1278.2 * 0.90
"""


def test_an_audit_config_loses_the_comments_at_which_loadgen_fails(tmp_path: Path) -> None:
    path = tmp_path / "audit.config"
    path.write_text(TEST09)
    assert read_audit_conf(path, "Offline", "performance") == (
        "*.*.mode = 2\n*.*.accuracy_log_sampling_target = 10000\n*.*.test09_min_output_tokens = 1150.38\n"
    )


def test_an_audit_config_that_would_do_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.config"
    path.write_text("*.*.mode = 2\nllama3_1-8b.*.min_duration = 0\n")
    with pytest.raises(ConfigError) as caught:
        read_audit_conf(path, "Offline", "accuracy")
    assert "write mode=performance" in caught.value.problems[0]
    assert "write * for the model" in caught.value.problems[1]
