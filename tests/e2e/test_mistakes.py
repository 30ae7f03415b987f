"""The user's mistakes: one clear line each, exit status 2, and no server hears of them; and secrets."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from embedded_servers import Servers
from lbrun_process import SMALL, SMALL_SERVER, Ended, Lbrun, urls
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

Pool = Callable[..., Servers]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that takes connections, and that nobody should connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def check_refused(ended: Ended, *words: str) -> None:
    """Refused in one line that has these words."""
    assert ended.status == 2
    assert len(ended.complaint) == 1, ended.err
    (line,) = ended.complaint
    assert line.startswith("lbrun: ")
    for word in words:
        assert word in line
    assert "Traceback" not in ended.err
    assert not ended.out


def check_untouched(listener: socket.socket) -> None:
    """Nobody has connected."""
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (
            "servers.urls=http://127.0.0.1:{port}",
            ["servers.urls", "'servers.urls=[http://127.0.0.1:{port}]'"],
        ),
        ("servers.urls=[127.0.0.1:{port}]", ["servers.urls[0]", "no scheme", "http://127.0.0.1:{port}"]),
        ("servers.urls=[http://127.0.0.1:{port},http://127.0.0.1:{port}/]", ["servers.urls[1]", "[0]"]),
        ("servers.urls='http://127.0.0.1:{port},http://127.0.0.1:{port}'", ["servers.urls", "write a list"]),
        ("servers.urls=[http://user:pass@127.0.0.1:{port}]", ["servers.urls", "servers.api_key_env"]),
    ],
    ids=["one URL without brackets", "no scheme", "twice the same", "one string", "user and password"],
)
def test_a_pool_that_is_written_wrongly_is_told_how_to_write_it(
    lbrun: Lbrun, listener: socket.socket, mistake: str, words: list[str]
) -> None:
    port = listener.getsockname()[1]
    ended = lbrun(mistake.format(port=port))
    check_refused(ended, *(word.format(port=port) for word in words))
    assert "pass@" not in ended.err
    assert not ended.folder.exists()
    check_untouched(listener)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("servers.max_in_flihgt=3", ["servers.max_in_flihgt", "servers.max_in_flight"]),
        ("+servers.foo=1", ["servers.foo"]),
        ("dataset.path=missing.json", ["dataset.path", "missing.json"]),
        ("servers.api_key_env=NO_SUCH_VARIABLE", ["servers.api_key_env", "NO_SUCH_VARIABLE"]),
        ("scenario.target_qps=fast", ["scenario.target_qps", "fast"]),
        ("strategy=fastest", ["strategy", "fastest", "least_outstanding"]),
    ],
)
def test_a_wrong_key_or_value_is_told_with_what_would_be_right(
    lbrun: Lbrun, listener: socket.socket, mistake: str, words: list[str]
) -> None:
    ended = lbrun(urls([f"http://127.0.0.1:{listener.getsockname()[1]}"]), mistake)
    check_refused(ended, *words)
    assert not ended.folder.exists()
    check_untouched(listener)


def test_all_mistakes_are_told_together(lbrun: Lbrun) -> None:
    ended = lbrun("servers.urls=[a:1]", "nosuch=1", "client.drain_s=-1", "dataset.path=missing.json")
    assert ended.status == 2
    first, *problems = ended.complaint
    assert first == "lbrun: 4 problems"
    assert sorted(line.split(":")[0].strip() for line in problems) == [
        "client.drain_s",
        "dataset.path",
        "nosuch",
        "servers.urls[0]",
    ]


BAD_DATA: dict[str, tuple[list[object], list[str], list[str]]] = {
    "another-column": ([{"ids": [1, 2]}], [], ["another-column.jsonl", "tok_input", "ids"]),
    "no-tokens": ([{"tok_input": [1]}, {"tok_input": []}], [], ["row 1, column 'tok_input'"]),
    "beyond": ([{"tok_input": [128256]}], [], ["row 0, column 'tok_input'", "128256", "vocabulary"]),
    "by-config": ([{"tok_input": [1]}], ["dataset.columns.token_ids=[mine]"], ["mine", "tok_input"]),
}
"""Rows of a data file, further overrides, and what must be told of them."""


def test_data_that_cannot_be_used_is_told_before_any_server_is_asked(
    lbrun: Lbrun, listener: socket.socket
) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for name, (rows, _, _) in BAD_DATA.items():
        (lbrun.base / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = lbrun.all(
        {name: [urls([url]), f"dataset.path={name}.jsonl", *more] for name, (_, more, _) in BAD_DATA.items()}
    )
    for name, run in ended.items():
        check_refused(run, f"{name}.jsonl", *BAD_DATA[name][2])
        assert "Traceback" not in (run.folder / "lbrun.log").read_text()
        result = run.result
        assert (result["verdict"], result["exit_status"]) == ("FAILED", 2)
        assert result["errors"] == [run.complaint[0].removeprefix("lbrun: ")]
    check_untouched(listener)


BAD_CONF = {
    "misread": ("scenario.user_conf", "*.*.min_duration = 6e5\n", ["line 1", "'6e5'", "whole number"]),
    "mode": ("scenario.user_conf", "*.*.mode = 1\n", ["line 1", "mode=accuracy"]),
    "no-rate": ("scenario.user_conf", "*.Offline.target_qps = 5\n", ["target_qps", "llama3_1-8b.Server"]),
    "audit": ("scenario.audit_conf", "*.*.mode = 1\n", ["line 1", "write mode=accuracy"]),
}
"""The key, the file that it names, and what must be told of it."""


def test_loadgen_files_that_it_would_not_take_as_meant_are_told_before_any_server_is_asked(
    lbrun: Lbrun, listener: socket.socket
) -> None:
    (lbrun.base / "data.jsonl").write_text('{"tok_input": [1]}\n')
    for name, (_, text, _) in BAD_CONF.items():
        (lbrun.base / f"{name}.conf").write_text(text)
    pool = urls([f"http://127.0.0.1:{listener.getsockname()[1]}"])
    rate = {"audit": ["scenario.target_qps=5"]}
    ended = lbrun.all(
        {
            name: [
                pool,
                "dataset.path=data.jsonl",
                "scenario=server",
                f"{key}={name}.conf",
                *rate.get(name, []),
            ]
            for name, (key, _, _) in BAD_CONF.items()
        }
    )
    for name, run in ended.items():
        check_refused(run, f"{name}.conf", *BAD_CONF[name][2])
    check_untouched(listener)


def test_an_id_beyond_the_vocabulary_that_a_server_tells_is_never_sent(
    lbrun: Lbrun, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/health").respond_with_data("")
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": MODEL, "vocab_size": 512}]})
    (lbrun.base / "ids.jsonl").write_text('{"tok_input": [1]}\n{"tok_input": [511, 512]}\n')
    url = httpserver.url_for("").rstrip("/")
    ended = lbrun(urls([url]), "servers.backend=openai", "dataset.path=ids.jsonl")
    check_refused(ended, "ids.jsonl, row 1", "token 1 is 512", "vocabulary of 512", url)
    assert {request.path for request, _ in httpserver.log} == {"/health", "/v1/models"}


def test_rules_that_were_not_met_make_a_run_invalid(lbrun: Lbrun, healthy: Pool) -> None:
    ended = lbrun(healthy().override, "rules=trial", "scenario=server", "scenario.ttft_limit_ms=1",
                  *SMALL_SERVER)  # fmt: skip
    assert ended.status == 3
    result = ended.check_books()
    assert result["verdict"] == "INVALID"
    assert result["samples"] == {"issued": 24, "completed": 24, "failed": 0}
    assert result["loadgen"]["result"] == "INVALID"
    assert "TTFT" in " ".join(result["errors"])
    assert "Run successful" not in ended.out
    assert ended.headline.startswith("INVALID, trial (")
    assert (ended.folder / "mlperf" / "mlperf_log_summary.txt").is_file()


# secrets

CANARY = "canary-3f9c1e77-do-not-sing"
MODEL = "meta-llama/Llama-3.1-8B-Instruct"


class Telltale:
    """A server that asks for the key, and puts it into what it says."""

    def __init__(self, server: HTTPServer, *, fails: bool) -> None:
        self.keys: dict[str, set[str]] = {}
        self.url = server.url_for("").rstrip("/")
        choice = {"index": 0, "text": "a b", "token_ids": [5, 6]}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}

        def completions(request: Request) -> Response:
            self._note(request)
            if fails:
                key = request.headers["Authorization"]
                # twice: the second is where messages are cut
                said = {"error": {"message": f"no credit for {key}, {'x' * 200} {key}"}}
                return Response(json.dumps(said), 500)
            answer = {
                "choices": [{**choice, "finish_reason": request.headers["Authorization"]}],
                "usage": usage,
            }
            return Response(json.dumps(answer), content_type="application/json")

        def models(request: Request) -> Response:
            self._note(request)
            return Response(json.dumps({"object": "list", "data": [{"id": MODEL}]}))

        def health(request: Request) -> Response:
            self._note(request)
            return Response("")

        server.expect_request("/health").respond_with_handler(health)
        server.expect_request("/v1/models").respond_with_handler(models)
        server.expect_request("/v1/completions").respond_with_handler(completions)

    def _note(self, request: Request) -> None:
        self.keys.setdefault(request.path, set()).add(request.headers.get("Authorization", ""))


def files_with(text: str, folder: Path) -> list[str]:
    """The files below a folder that hold a text, in plain bytes or inside Parquet's compressed columns."""
    found = [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]
    for path in folder.rglob("*.parquet"):
        if text in json.dumps(pq.read_table(path).to_pylist(), default=str):
            found.append(str(path))
    return found


@pytest.mark.parametrize("fails", [False, True], ids=["answers", "says the key in its errors"])
def test_an_api_key_reaches_the_servers_and_nothing_else(
    lbrun: Lbrun, httpserver: HTTPServer, fails: bool
) -> None:
    server = Telltale(httpserver, fails=fails)
    ended = lbrun(urls([server.url]), "rules=trial", "servers.api_key_env=CANARY_KEY",
                  "servers.grace_s=0", "servers.max_retries_per_server=1", "report.record_outputs=true",
                  *SMALL, report=not fails, env={"CANARY_KEY": CANARY})  # fmt: skip
    assert ended.status == (1 if fails else 0), ended.err + ended.out
    assert server.keys == {
        path: {f"Bearer {CANARY}"} for path in ("/health", "/v1/models", "/v1/completions")
    }
    assert CANARY[:8] not in ended.out + ended.err
    assert (ended.folder / "report.html").is_file() is not fails
    if fails:
        assert "no credit for" in ended.out
    assert files_with(CANARY[:8], lbrun.base) == []
