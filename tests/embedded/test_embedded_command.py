"""``python -m lbrun.embedded`` by hand."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lbrun.embedded.__main__ import main

ROOT = Path(__file__).parents[2]


def command(*arguments):
    return [sys.executable, "-m", "lbrun.embedded", *arguments]


def test_it_prints_one_line_with_the_url_and_ends_quietly(is_up, eventually):
    served = subprocess.Popen(
        command("--port", "0", "--backend", "sglang"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        url = served.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        eventually(lambda: is_up(url))
        served.send_signal(signal.SIGINT)
        out, err = served.communicate(timeout=10)
        assert (served.returncode, out, err) == (0, "", "")
    finally:
        served.kill()
        served.wait()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--slots", "0"], "--slots: 0 cannot be used"),
        (["--slots", "many"], "--slots: invalid int value: 'many'"),
        (["--backend", "tgi"], "--backend: 'tgi' cannot be used; write vllm or sglang"),
        (["--port", "70000"], "--port: 70000 is no port"),
        (["--fault", "no_such"], "no kind 'no_such'"),
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["--vocab-size", "10", "--eos-token-id", "10"], "--eos-token-id: 10 cannot be used"),
    ],
)
def test_a_bad_value_is_one_clear_line_and_status_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_port_in_use_is_one_clear_line_and_status_1(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["--port", str(taken.getsockname()[1])]) == 1
    assert "in use" in capsys.readouterr().err


def test_help_tells_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for option in ("--port", "--backend", "--model", "--tpot-ms", "--slots", "--fault", "--speed", "--seed"):
        assert option in said


def test_a_server_loads_nothing_heavy():
    heavy = (
        "pyarrow",
        "pandas",
        "numpy",
        "hydra",
        "omegaconf",
        "pydantic",
        "httpx",
        "matplotlib",
        "rich",
        "PIL",
    )
    script = f"import sys, lbrun.embedded.server; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ
    ).stdout
    assert out == "[]\n"
