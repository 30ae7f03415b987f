"""Secrets that a server quotes, in whatever encoding and place, are in nothing that a run leaves or shows."""

from __future__ import annotations

import base64
import html
import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from lbrun_process import Lbrun, urls

KEY = "sk-kan4ry/AbCd&EfGh+IjKlMn=OpQr'StUvWx0123456789"
HEADER = "hush-QwErTyUiOp77AsDfGhJk/LzXc&VbNm"
MODEL = "meta-llama/Llama-3.1-8B-Instruct"

ENCODINGS = [
    str,
    str.upper,
    lambda k: json.dumps(k).strip('"').replace("/", "\\/").replace("&", "\\u0026"),
    lambda k: json.dumps(json.dumps(k).replace("/", "\\/").replace("&", "\\u0026")).strip('\\"'),
    lambda k: "".join(f"\\u{ord(c):04X}" for c in k),
    lambda k: "".join(f"\\x{ord(c):02x}" for c in k),
    urllib.parse.quote,
    lambda k: "".join(f"%{ord(c):02x}" for c in k),
    lambda k: "".join(f"&#x{ord(c):x};" for c in k),
    lambda k: html.escape(k).replace("/", "&#x2F;"),
    lambda k: base64.b64encode(k.encode()).decode(),
    lambda k: base64.urlsafe_b64encode(b"user:" + k.encode()).decode().rstrip("="),
    lambda k: k.encode().hex(),
    lambda k: k[4:-4],
]
"""Each gives one line of what may stand in a header."""
PLACES = (
    "a body", "JSON", "an error in an answer", "a finish reason", "no JSON", "a reason phrase",
    "a chunk's size", "the answer", "a header",
)  # fmt: skip
assert len(ENCODINGS) % 2 == 0
assert len(PLACES) == 9, "coprime to the encodings, so that each meets each"


class _Hostile(BaseHTTPRequestHandler):
    """Quotes its secrets in one of three answers, each time in another way."""

    protocol_version = "HTTP/1.1"
    server: Hostile

    def do_GET(self) -> None:
        n = self.server.count("GET")
        if self.path == "/health":
            if n < 2 * len(ENCODINGS):  # while it starts, so that these words are shown
                secret = self._quoted(n)
                self.wfile.write(f"HTTP/1.1 2OO {secret}\r\nx: {secret}\r\n\r\n".encode())
                self.close_connection = True
                return
            self._answer(200, b"")
        else:
            names = [MODEL, *(self._quoted(i) for i in range(2 * len(ENCODINGS)))]
            self._answer(200, json.dumps({"data": [{"id": name} for name in names]}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        n = self.server.count("POST")
        if n % 3 or not self.server.is_hostile:
            self._answer(200, _completion("a b", "stop"))
            return
        n //= 3
        secret, place = self._quoted(n), PLACES[n % len(PLACES)]
        self.server.quoted.add((place, n % len(ENCODINGS)))
        if place == "a body":
            self._answer(500, f"no credit for {secret}, {'x' * 90} {secret}".encode())
        elif place == "JSON":
            self._answer(502, json.dumps({"error": {"message": f"bad key: {secret}"}}).encode())
        elif place == "an error in an answer":
            self._answer(200, json.dumps({"error": {"message": f"denied {secret}", "code": 7}}).encode())
        elif place == "a finish reason":
            self._answer(200, _completion("a b", secret))
        elif place == "no JSON":
            self._answer(200, secret.encode())
        elif place == "a reason phrase":
            self._answer(503, b"{}", reason=f"No {secret}")
        elif place == "a chunk's size":
            head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            self.wfile.write(f"{head}{secret}\r\nabc\r\n".encode())
            self.close_connection = True
        elif place == "the answer":
            self._answer(200, _completion(f"you sent {secret}", "stop"))
        else:
            self._answer(500, b"{}", header=secret)

    def _quoted(self, n: int) -> str:
        """One of the two secrets, as it came, in the nth encoding."""
        name = ("authorization", "x-gateway")[n // len(ENCODINGS) % 2]
        return ENCODINGS[n % len(ENCODINGS)](self.headers[name].removeprefix("Bearer "))

    def _answer(self, status: int, body: bytes, *, reason: str = "X", header: str = "-") -> None:
        head = f"HTTP/1.1 {status} {reason}\r\nx-echo: {header}\r\ncontent-length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def log_message(self, *args: object) -> None:
        pass


class Hostile(ThreadingHTTPServer):
    """quoted: the places and encodings in which secrets have been quoted."""

    daemon_threads = True

    def __init__(self, *, is_hostile: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Hostile)
        self.is_hostile = is_hostile
        self.quoted: set[tuple[str, int]] = set()
        self._n: dict[str, int] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, method: str) -> int:
        with self._lock:
            n = self._n.get(method, 0)
            self._n[method] = n + 1
            return n


def _completion(text: str, finish_reason: str) -> bytes:
    choice = {"index": 0, "text": text, "token_ids": [5, 6], "finish_reason": finish_reason}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


@pytest.fixture
def servers() -> Iterator[list[Hostile]]:
    pool = [Hostile(is_hostile=True), Hostile(is_hostile=False)]
    yield pool
    for server in pool:
        server.shutdown()
        server.server_close()


def _written(folder: Path) -> Iterator[tuple[str, str]]:
    """The name and the content of everything below a folder; Parquet's columns are compressed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                text += json.dumps(pq.read_table(path).to_pylist())
            yield str(path), text


@pytest.mark.parametrize("workers", [0, 2])
def test_no_secret_is_written_or_shown_in_any_encoding(
    lbrun: Lbrun, servers: list[Hostile], workers: int
) -> None:
    running = lbrun.start(
        urls([server.url for server in servers]), "rules=trial", "scenario=offline",
        f"client.workers={workers}",
        "servers.api_key_env=CANARY_KEY", "+servers.headers_env.X-Gateway=CANARY_HEADER",
        "servers.max_in_flight=2", "servers.health.window_min=10000", "servers.health.failures_in_a_row=1000",
        "report.record_outputs=true", "model.payload=text", "servers.health.probe_interval_s=0.05",
        "scenario.trial.min_query_count=1000", "servers.max_retries_per_server=100", "servers.min_ready=2",
        report=True, env={"CANARY_KEY": KEY, "CANARY_HEADER": HEADER},
    )  # fmt: skip
    variables: dict[str, set[str]] = {}
    titles = ""
    while running.process.poll() is None:
        for process in running.family():
            try:
                command = " ".join(process.cmdline())
                titles += command + process.name()
                kind = next((kind for kind in ("run.child", "workers.process") if kind in command), "")
                variables.setdefault(kind, set()).update(process.environ())
            except psutil.Error:
                continue
    ended = running.wait()
    assert servers[0].quoted == {(p, e) for p in PLACES for e in range(len(ENCODINGS))}, ended.err + ended.out
    assert ended.result["samples"]["failed"] == 0, ended.err + ended.out
    assert (ended.folder / "report.html").is_file()
    assert (ended.folder / "outputs.jsonl").is_file()
    if workers:
        assert variables["workers.process"]
        assert not {"CANARY_KEY", "CANARY_HEADER"} & variables["workers.process"]

    outputs = [*_written(lbrun.base), ("process titles", titles)]
    for where in ("lbrun.log", "requests.parquet", "outputs.jsonl", "result.json", "report.html", "stdout"):
        assert any(where in name and "***" in text for name, text in outputs), where
    for secret in (KEY, HEADER):
        for encode in ENCODINGS:
            said = encode(secret)
            for start in range(0, len(said) - 12):
                part = said[start : start + 12]
                found = [name for name, text in outputs if part in text]
                assert not found, f"{part!r} of {said!r}"


def test_the_secret_itself_in_the_configuration_is_refused_before_anything_is_written(lbrun: Lbrun) -> None:
    env = {"CANARY_KEY": "kan4ry0123456789", "CANARY_HEADER": "hush0123456789"}
    base = ["servers.urls=[http://127.0.0.1:9]", "servers.api_key_env=CANARY_KEY",
            "+servers.headers_env.X-Gateway=CANARY_HEADER"]  # fmt: skip
    for mistake, key in (
        ("servers.served_model=kan4ry0123456789", "servers.served_model"),
        ("+servers.headers.X-Other=hush0123456789", "servers.headers.X-Other"),
        ("+model.extra_body.note='my kan4ry0123456789'", "model.extra_body.note"),
        ("hydra.job.name=kan4ry0123456789", "hydra.job.name"),
    ):
        ended = lbrun(*base, mistake, env=env)
        assert ended.status == 2
        assert len(ended.complaint) == 1, ended.err
        assert ended.complaint[0].startswith(f"lbrun: {key}: ")
        assert "kan4ry" not in ended.err + ended.out
        assert "hush" not in ended.err + ended.out
        assert not ended.folder.exists()
