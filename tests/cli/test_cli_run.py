"""From the command line to the job and back: folders, exit statuses, sweeps, resuming, interrupts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import Lbrun, Recorder

from lbrun import __version__
from lbrun.cli.jobs import worst
from lbrun.errors import DatasetError, Interrupted, RunFailed

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("status", [0, 1, 3, 130])
def test_a_run_ends_with_its_own_exit_status(lbrun: Lbrun, recorder: Recorder, status: int) -> None:
    recorder.outcomes = [status]
    assert lbrun("hydra.run.dir=here").status == status


def test_a_run_gets_its_folder_its_settings_and_the_command_to_repeat_it(
    lbrun: Lbrun, recorder: Recorder, tmp_path: Path
) -> None:
    url = "servers.urls=['http://a:1']"
    assert lbrun(url, "hydra.run.dir=out/my run").status == 0
    ((settings, run_dir, command, overrides),) = recorder.runs
    assert run_dir == tmp_path / "out" / "my run"
    assert settings.servers.urls == ("http://a:1",)
    assert overrides == [url]
    assert command == "python -m lbrun 'servers.urls=['\"'\"'http://a:1'\"'\"']'"
    assert (run_dir / ".hydra" / "overrides.yaml").is_file()


def test_the_command_to_repeat_a_run_finds_the_users_own_groups(
    lbrun: Lbrun, recorder: Recorder, tmp_path: Path
) -> None:
    (tmp_path / "own" / "servers").mkdir(parents=True)
    (tmp_path / "own" / "servers" / "mine.yaml").write_text("urls: [http://a]\n")
    lbrun("servers=mine", "--config-dir", "own", "hydra.run.dir=here")
    ((_, _, command, _),) = recorder.runs
    assert command == f"python -m lbrun --config-dir {tmp_path}/own servers=mine"


def test_runs_of_the_same_second_have_folders_of_their_own(lbrun: Lbrun, recorder: Recorder) -> None:
    for _ in range(3):
        lbrun()
    assert len({run_dir for _, run_dir, _, _ in recorder.runs}) == 3


def test_a_folder_that_holds_a_run_is_not_used_again(lbrun: Lbrun, recorder: Recorder) -> None:
    lbrun("hydra.run.dir=here")
    ended = lbrun("hydra.run.dir=here")
    assert ended.status == 2
    assert ended.err == "lbrun: hydra.run.dir: here holds a run already; name another folder\n"
    assert len(recorder.runs) == 1


def test_a_folder_that_cannot_be_made_is_the_users_mistake(lbrun: Lbrun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = lbrun("-m", "hydra.sweep.dir=file/x")
    assert ended.status == 2
    assert ended.err == "lbrun: hydra.sweep.dir: file/x: Not a directory; name a folder that can be written\n"
    ended = lbrun("hydra.run.dir=file/x")
    assert ended.status == 2
    assert ended.err == "lbrun: hydra.run.dir: file/x: Not a directory; name a folder that can be written\n"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DatasetError("no rows", path="d.json"), 2, "lbrun: d.json: no rows\n"),
        (RunFailed("No API servers became ready"), 1, "lbrun: No API servers became ready\n"),
        (Interrupted(), 130, "lbrun: interrupted\n"),
        (KeyboardInterrupt(), 130, "lbrun: interrupted\n"),
    ],
)
def test_errors_of_a_run_are_told_without_a_traceback(
    lbrun: Lbrun, recorder: Recorder, error: BaseException, status: int, message: str
) -> None:
    recorder.outcomes = [error]
    ended = lbrun()
    assert (ended.status, ended.err) == (status, message)


def test_a_mistake_of_ours_is_not_passed_off_as_the_users(lbrun: Lbrun, recorder: Recorder) -> None:
    recorder.outcomes = [ZeroDivisionError("a bug")]
    with pytest.raises(ZeroDivisionError, match="a bug"):
        lbrun()
    recorder.outcomes = [OSError("another")]
    with pytest.raises(OSError, match="another"):
        lbrun()


def test_hydras_own_settings_of_the_process_are_put_back(
    lbrun: Lbrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    argv = sys.argv
    lbrun()
    assert sys.argv is argv
    assert "HYDRA_FULL_ERROR" not in os.environ


SWEEP = ("-m", "strategy=round_robin,random,weighted", "hydra.sweep.dir=night")


def test_a_sweep_goes_on_after_failures_and_ends_with_its_worst_status(
    lbrun: Lbrun, recorder: Recorder, tmp_path: Path
) -> None:
    recorder.outcomes = [1, RunFailed("no servers"), 3]
    ended = lbrun(*SWEEP)
    assert ended.status == 1
    assert [settings.strategy.name for settings, *_ in recorder.runs] == ["round_robin", "random", "weighted"]
    assert [run_dir for _, run_dir, _, _ in recorder.runs] == [tmp_path / "night" / str(n) for n in range(3)]
    assert "job 2 of 3: strategy=random" in ended.out
    ((run_dir, problems, overrides),) = recorder.config_errors
    assert (run_dir.name, problems, overrides) == ("1", ["no servers"], ["strategy=random"])
    jobs = json.loads((tmp_path / "night" / "sweep.json").read_text())["jobs"]
    assert [job["overrides"] for job in jobs] == [
        "strategy=round_robin",
        "strategy=random",
        "strategy=weighted",
    ]


def test_a_sweep_started_again_runs_only_what_is_not_finished(lbrun: Lbrun, recorder: Recorder) -> None:
    recorder.outcomes = [3, RunFailed("broken"), 0]
    lbrun(*SWEEP)
    recorder.runs.clear()
    ended = lbrun(*SWEEP)
    assert [settings.strategy.name for settings, *_ in recorder.runs] == ["random"]
    assert "job 1 of 3: strategy=round_robin: finished before, not run again" in ended.out
    assert ended.status == 3  # the finished job was INVALID, and still is


def test_a_finished_result_is_never_overwritten_by_an_error(
    lbrun: Lbrun, recorder: Recorder, tmp_path: Path
) -> None:
    lbrun(*SWEEP)
    before = (tmp_path / "night" / "0" / "result.json").read_text()
    recorder.outcomes = [RunFailed("the folder holds a result")] * 3
    assert lbrun(*SWEEP, "strategy.seed=5").status == 1
    assert (tmp_path / "night" / "0" / "result.json").read_text() == before
    assert not recorder.config_errors


@pytest.mark.parametrize("how", [130, KeyboardInterrupt(), Interrupted()])
def test_ctrl_c_ends_the_sweep_and_still_shows_what_there_is(
    lbrun: Lbrun, recorder: Recorder, tmp_path: Path, how: object
) -> None:
    recorder.outcomes = [0, how]
    ended = lbrun(*SWEEP)
    assert ended.status == 130
    assert len(recorder.runs) == 2
    jobs = json.loads((tmp_path / "night" / "sweep.json").read_text())["jobs"]
    assert [job["verdict"] for job in jobs][0::2] == ["VALID", "NO RESULT"]
    assert "3 jobs: " in ended.out


def test_the_worst_status_of_a_sweep() -> None:
    assert worst([]) == 0
    assert worst([0, 3]) == 3
    assert worst([3, 1, 0]) == 1
    assert worst([1, 2, 3]) == 2
    assert worst([2, 130, 1]) == 130
    assert worst([0, 77, 3]) == 77


def test_help_names_every_group_with_its_options(lbrun: Lbrun) -> None:
    ended = lbrun("--help")
    assert ended.status == 0
    for word in ("llama3_1_8b (default)", "sglang_x3", "interactive", "power_of_two", "unequal_pool"):
        assert word in ended.out
    assert max(map(len, ended.out.splitlines())) <= 110
    assert lbrun("--version").out == f"lbrun {__version__}\n"


def test_cfg_shows_the_configuration_and_runs_nothing(
    lbrun: Lbrun, recorder: Recorder, tmp_path: Path
) -> None:
    ended = lbrun("servers=sglang_x3", "--cfg", "job", "-p", "servers")
    assert ended.status == 0
    assert "backend: sglang" in ended.out
    assert lbrun("--info", "searchpath").status == 0
    assert not recorder.runs
    assert not list(tmp_path.iterdir())


def python_m_lbrun(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lbrun", *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_real_command_tells_mistakes_without_a_traceback(tmp_path: Path) -> None:
    ended = python_m_lbrun("servers.urls=http://a,http://b", "model=foo", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        "lbrun: 2 problems",
        "  servers.urls: several URLs in one string; write a list: 'servers.urls=[http://a,http://b]'",
        "  model: there is no 'foo'; choose one of gpt_oss_120b, llama3_1_8b, qwen3vl",
    ]
    assert not list(tmp_path.iterdir())


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from lbrun.cli.main import main; main(['--help']); "
        "print([m for m in ('hydra', 'pydantic', 'pyarrow', 'httpx', 'mlperf_loadgen') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout.splitlines()[-1] == "[]"
