"""Mistakes on the command line: one clear line each, status 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import Lbrun, Recorder

LIST = "'servers.urls=[http://a:8000,http://b:8000]'"
UNREADABLE = (
    f"servers.urls: the list cannot be read; write {LIST}, and unusual URLs in quotes: "
    "\"servers.urls=['http://[::1]:8000']\""
)
BY_NAME = (
    "secrets are not written on the command line; put it into an environment variable and write its name: "
    "servers.api_key_env=NAME"
)
STRATEGIES = "least_outstanding, least_tokens, peak_ewma, power_of_two, random, round_robin, weighted"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        # groups
        (
            ["servers=sglang_x4"],
            "servers: there is no 'sglang_x4'; choose one of embedded, local, sglang_x3, template, vllm_x3 "
            "(did you mean sglang_x3?)",
        ),
        (["-m", "strategy=random,foo"], f"strategy: there is no 'foo'; choose one of {STRATEGIES}"),
        (["+strategy=random"], "strategy: the group is in use already; leave the + out"),
        (["experiment=foo"], "experiment: there is no 'foo'; choose one of unequal_pool"),
        (["hydra/launcher=foo"], "hydra/launcher: there is no 'foo'; choose one of basic"),
        # keys
        (["servers.url=[http://a]"], "servers.url: there is no such key; did you mean servers.urls?"),
        (["+servers.url=[http://a]"], "servers.url: there is no such key; did you mean servers.urls?"),
        (["target_qps=3"], "target_qps: there is no such key; did you mean scenario.target_qps?"),
        (["+report.xyzzy=1"], "report.xyzzy: there is no such key; report has html, record_outputs"),
        (["+mode=accuracy"], "mode: the key is there already; leave the + out"),
        (["mode=accuracy", "mode=performance"], "mode: it is given twice; give it once"),
        (
            ["servers.headers.X-A=1"],
            "servers.headers.X-A: it is not set yet; write a + before it: +servers.headers.X-A=...",
        ),
        (
            ["servers=local", "servers.embedded.count=2"],
            "servers.embedded.count: this pool has no embedded servers; write servers=embedded",
        ),
        # lists of servers
        (
            ["servers.urls=http://a:8000,http://b:8000"],
            f"servers.urls: several URLs in one string; write a list: {LIST}",
        ),
        (
            ["-m", "servers.urls=http://a:8000,http://b:8000"],
            f"servers.urls: several URLs in one string; write a list: {LIST}",
        ),
        (
            ["servers.urls=http://a:8000"],
            "servers.urls: one URL without brackets; write a list: 'servers.urls=[http://a:8000]'",
        ),
        (
            ["servers.urls=a:8000"],
            "servers.urls: one URL without brackets; write a list: 'servers.urls=[http://a:8000]'",
        ),
        (["servers.urls=[a:8000]"], "servers.urls[0]: 'a:8000' has no scheme; write http://a:8000"),
        (["servers.urls=[http://[::1]:8000]"], UNREADABLE),
        (["servers.urls=[http://a:8000"], UNREADABLE),
        (
            ["servers.urls[0]=http://a"],
            f"servers.urls[0]: brackets do not reach an element of a list; write the whole list: {LIST}",
        ),
        (
            ["servers.urls.0=http://a"],
            "servers.urls[0]: the list has no such element; write the whole list: [a,b]",
        ),
        (
            ["servers.urls=[]"],
            f"servers.urls: the list is empty; write {LIST}, or leave the key out for the group's servers",
        ),
        (
            ["servers.urls={a: b}"],
            "servers.urls: these are keys, where a list belongs; write a list: [a,b]",
        ),
        (
            ["servers=http://a:8000"],
            f"servers: this chooses a group by its name, and sets no values; write {LIST}",
        ),
        (
            ["model=null"],
            "model: null chooses nothing; write the name of an option, or leave it out for the default",
        ),
        (
            ["model=[llama3_1_8b,qwen3vl]"],
            "model: only one can be chosen; for one after another write -m model=llama3_1_8b,qwen3vl",
        ),
        (["SERVERS.URLS=[http://a]"], "SERVERS.URLS: there is no such key; did you mean servers.urls?"),
        (["ünïcode=1"], "ünïcode: this is not a key; see docs/configuration.md for all of them"),
        (
            ["model={name: x}"],
            "model: this chooses a group by its name, and sets no values; write model.KEY=value",
        ),
        (
            ["servers.urls=[https//a:8000]"],
            "servers.urls[0]: 'https//a:8000' has no scheme; write http://a:8000",
        ),
        (
            ["servers.urls=[http://a/v1/chat/completions]"],
            "servers.urls[0]: 'http://a/v1/chat/completions' ends with the path of one kind of request; "
            "write the server's base URL: http://a",
        ),
        # syntax
        (["run"], "'run': this is no override; write key=value, e.g. strategy=least_outstanding"),
        (["=accuracy"], "'=accuracy': this is no override; write key=value, e.g. strategy=least_outstanding"),
        (["hydra.run.dir="], "hydra.run.dir: it is empty; name a folder: hydra.run.dir=outputs/my_run"),
        (
            ["model.sampling=[1]"],
            "model.sampling: this is a list, where keys belong; write them one by one: "
            "model.sampling.KEY=value",
        ),
        (["mode =accuracy"], "mode: no spaces around the =; write mode=value"),
        (
            ["servers.served_model=a{b"],
            "servers.served_model: the value cannot be read; put quotes around it: "
            "\"servers.served_model='...'\"",
        ),
        (
            ["strategy=random,weighted"],
            "strategy: 'random,weighted' is more than one value; choose one, or add -m to run them one after "
            "another",
        ),
        (
            ["model.sampling.stop=a,b"],
            "model.sampling.stop: this is not a list; write 'model.sampling.stop=[a,b]'",
        ),
        (
            ["-m", "scenario.target_qps=interval(1,2)"],
            "scenario.target_qps: an interval has no end of values; write a list: scenario.target_qps=1,2,4, "
            "or range(1,5)",
        ),
        # values
        (["mode=fast"], "mode: 'fast' is not known; choose one of performance, accuracy"),
        (
            ["-m", "strategy.seed=1,-1", "mode=performance"],
            "strategy.seed: -1 is too small; write at least 0 [with strategy.seed=-1 mode=performance]",
        ),
        (
            ["-m", "strategy=random,weighted", "mode=x"],
            "mode: 'x' is not known; choose one of performance, accuracy",
        ),
        (
            ["servers.served_model=${oc.env:LBRUN_TEST_UNSET}"],
            "servers.served_model: the environment variable LBRUN_TEST_UNSET is not set; export it, "
            "or give a default: ${oc.env:LBRUN_TEST_UNSET,default}",
        ),
        (
            ["servers.served_model=${model.foo}"],
            "servers.served_model: interpolation key 'model.foo' not found; name a key that there is",
        ),
        (
            ["servers=local", "+servers.headers={X-A: '${oc.env:HOME}'}"],
            "servers.headers.X-A: the variable's value would be written into the run's files; "
            "write its name: +servers.headers_env.X-A=NAME",
        ),
        (
            ["servers.faults=[9:status_500]"],
            "servers.faults[0]: there is no server 9; write one from 0 to 2",
        ),
        # flags
        (["--nope"], "command line: unrecognized arguments: --nope; see python -m lbrun --help"),
        (["--cfg", "job", "-m"], "command line: choose one of --cfg, --info, --shell-completion and -m"),
        (["--resolve"], "command line: --package and --resolve go with --cfg; write --cfg job"),
        (
            ["--config-dir", "nowhere"],
            "--config-dir: there is no folder nowhere; give one with your own groups",
        ),
        (
            ["--shell-completion", "x"],
            "command line: Expecting one subcommand from ['install', 'uninstall', 'query'] to be set; "
            "see python -m lbrun --help",
        ),
        (
            ["hydra.sweeper.params.x=3"],
            "configuration: Hydra cannot compose it: Unexpected type for root: NoneType; "
            "see python -m lbrun --help",
        ),
        # secrets
        (["servers.api_key=sk-canary"], f"servers.api_key: {BY_NAME}"),
        (["+servers.api_key=sk-canary"], f"servers.api_key: {BY_NAME}"),
        (
            ["+servers.headers.Authorization=sk-canary"],
            f"servers.headers.Authorization: {BY_NAME}, or +servers.headers_env.HEADER=NAME",
        ),
        (
            ["+servers.headers={Authorization: Bearer sk-canary}"],
            f"servers.headers: {BY_NAME}, or +servers.headers_env.HEADER=NAME",
        ),
        (
            ["servers.api_key_env=sk-canary"],
            "servers.api_key_env: this is not the name of an environment variable; put the secret into a "
            "variable and write its name: servers.api_key_env=API_KEY",
        ),
    ],
)
def test_each_mistake_is_one_line_and_costs_no_folder(
    lbrun: Lbrun, recorder: Recorder, tmp_path: Path, argv: list[str], message: str
) -> None:
    ended = lbrun(*argv)
    assert (ended.status, ended.out, ended.err) == (2, "", f"lbrun: {message}\n")
    assert not recorder.runs
    assert not list(tmp_path.iterdir())


def test_all_mistakes_come_at_once_whatever_their_kind(lbrun: Lbrun) -> None:
    ended = lbrun("servers.url=x", "mode=fast", "strategy=a,b", "client.idle_timeout_s=-1", "oops")
    assert ended.status == 2
    assert ended.err.splitlines() == [
        "lbrun: 5 problems",
        "  servers.url: there is no such key; did you mean servers.urls?",
        "  strategy: 'a,b' is more than one value; choose one, or add -m to run them one after another",
        "  'oops': this is no override; write key=value, e.g. strategy=least_outstanding",
        "  mode: 'fast' is not known; choose one of performance, accuracy",
        "  client.idle_timeout_s: -1 is too small; write a number above 0 (seconds)",
    ]


@pytest.mark.parametrize(
    "override",
    [
        "servers.urls=[http://user:sk-canary@a:8000]",
        "servers.urls=http://user:sk-canary@a:8000,http://b",
        "servers.urls=[http://user:sk-canary@a:8000",
        "+servers.headers_env.X-A=sk-canary",
        "+servers.headers_env={X-A: sk-canary}",
        "servers.api_key_env=[sk-canary]",
        "servers.api_key_env=sk_canary",
        "servers.api_key=a,sk-canary",
        "+servers.headers.X-Auth-Token=sk-canary",
        "my_token=sk-canary{",
    ],
)
@pytest.mark.parametrize("mode", [[], ["--cfg", "job"]])
def test_no_secret_gets_into_a_message_or_a_file(
    lbrun: Lbrun, tmp_path: Path, override: str, mode: list[str]
) -> None:
    ended = lbrun(*mode, "servers=local", override)
    shown = ended.out if mode == ["--cfg", "job"] and ended.status == 0 else ""
    assert "canary" not in ended.err
    assert shown or ended.status == 2
    for file in tmp_path.rglob("*"):
        assert "canary" not in file.name
        assert not file.is_file() or "canary" not in file.read_text()


def test_files_of_ones_own_that_hydra_would_pass_over_are_refused(lbrun: Lbrun, tmp_path: Path) -> None:
    own = tmp_path / "own" / "servers"
    own.mkdir(parents=True)
    (own / "mine.yml").write_text("urls: []\n")
    (own / "local.yaml").write_text("urls: []\n")
    ended = lbrun("--config-dir", "own", "servers=mine")
    assert ended.status == 2
    assert ended.err.splitlines() == [
        "lbrun: 2 problems",
        f"  --config-dir: {own}/mine.yml would not be read; rename it to mine.yaml",
        f"  --config-dir: {own}/local.yaml would not be read: lbrun has its own servers/local; rename it",
    ]


def test_a_file_that_is_no_yaml_is_named_with_the_line(lbrun: Lbrun, tmp_path: Path) -> None:
    own = tmp_path / "own" / "servers"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("urls: [http://a\nbackend: vllm\n")
    ended = lbrun("--config-dir", "own", "servers=mine")
    assert ended.status == 2
    assert ended.err.startswith(f"lbrun: {own}/mine.yaml, line 2, column 8: ")
    assert len(ended.err.splitlines()) == 1


def test_unknown_keys_in_ones_own_files_are_refused(lbrun: Lbrun, tmp_path: Path) -> None:
    own = tmp_path / "own" / "servers"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("urls: [http://a]\nbackned: vllm\n")
    ended = lbrun("--config-dir", "own", "servers=mine")
    assert ended.err == "lbrun: servers.backned: there is no such key; did you mean servers.backend?\n"


def test_what_ones_own_file_leaves_open_must_be_given(lbrun: Lbrun, tmp_path: Path) -> None:
    own = tmp_path / "own" / "strategy"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("name: ???\n")
    ended = lbrun("--config-dir", "own", "strategy=mine")
    assert ended.err == "lbrun: strategy.name: it has no value yet; write strategy.name=...\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"- http://a\n",
            "servers/mine.yaml: Cannot merge DictConfig with ListConfig; write lines of the form",
        ),
        (b"urls: [http://\xff]\n", "--config-dir: {own}/mine.yaml cannot be read: it is not UTF-8 text"),
        (b"defaults: [nowhere]\n", "servers: there is no 'nowhere'; choose one of embedded, local"),
        (
            b"servers: {urls: [http://a]}\n",
            "servers.servers: the keys of a file in servers/ are below servers already; "
            "leave the line `servers:` out",
        ),
    ],
)
def test_a_file_of_the_wrong_shape_is_told_what_is_wrong_with_it(
    lbrun: Lbrun, tmp_path: Path, content: bytes, message: str
) -> None:
    own = tmp_path / "own" / "servers"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_bytes(content)
    ended = lbrun("--config-dir", "own", "servers=mine")
    assert ended.status == 2
    assert message.format(own=own) in ended.err
