"""What an embedded server, and a pool of them, is told to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from lbrun.embedded.faults import Fault
from lbrun.errors import ConfigError

BACKENDS = ("vllm", "sglang")

LLAMA3_EOS = 128009  # <|eot_id|>, the token that ends an answer of the default model


def _setting(default: Any, meaning: str) -> Any:
    """A dataclass field whose meaning is also the help text of its command line option."""
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class ServerModel:
    """The simulated model and engine: what all servers of a pool have in common.

    With the defaults a request of the llama3.1-8b benchmark (780 tokens in, 73 out) takes about 185 ms
    on a server that is not full.
    """

    backend: str = _setting("vllm", "the protocol to speak: vllm or sglang")
    model: str = _setting("meta-llama/Llama-3.1-8B-Instruct", "the model's name, as /v1/models lists it")
    slots: int = _setting(32, "sequences that are worked on at once; further requests wait in line")
    ttft_base_ms: float = _setting(20.0, "time to first token of an empty prompt, in ms")
    ttft_per_token_us: float = _setting(25.0, "what each prompt token adds to the time to first token, in us")
    tpot_ms: float = _setting(2.0, "time per output token after the first, in ms")
    jitter: float = _setting(0.0, "share by which times vary, e.g. 0.1 for a tenth up or down")
    output_tokens_mean: float = _setting(73.0, "mean length of an answer before max_tokens cuts it")
    max_model_len: int = _setting(131_072, "context length: prompt and answer together")
    vocab_size: int = _setting(128_256, "token ids are below this")
    eos_token_id: int | None = _setting(
        None, "the token that ends an answer (default: Llama 3's, or the last of a smaller vocabulary)"
    )
    multimodal: bool = _setting(True, "accept images in chat messages")
    seed: int = _setting(0, "answers are a function of prompt and seed")
    coalesce: bool = _setting(False, "put all tokens that are due at once into one event of a stream")
    keep_alive_s: float = _setting(
        5.0, "idle connections are closed after this many seconds, as real servers do"
    )
    journal: str | None = _setting(
        None,
        "append a line for each request and each whole answer to this file; a pool replaces {server}",
    )

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ConfigError(problems)

    @property
    def eos_id(self) -> int:
        """The id that ends an answer."""
        if self.eos_token_id is not None:
            return self.eos_token_id
        return min(LLAMA3_EOS, self.vocab_size - 1)

    def _problems(self) -> list[str]:
        found = []

        def check(name: str, good: Callable[[Any], bool], wanted: str) -> None:
            value = getattr(self, name)
            if not good(value):
                found.append(f"{name}: {value!r} cannot be used; write {wanted}")

        check("backend", lambda v: v in BACKENDS, " or ".join(BACKENDS))
        check("model", lambda v: bool(v) and v.isprintable(), "the name of a model")
        check("slots", lambda v: v >= 1, "1 or more")
        for name in ("ttft_base_ms", "ttft_per_token_us", "tpot_ms"):
            check(name, lambda v: 0 <= v < 1e9, "0 or more")
        check("jitter", lambda v: 0 <= v < 1, "a share from 0 to below 1")
        check("output_tokens_mean", lambda v: 1 <= v < 1e9, "1 or more")
        check("max_model_len", lambda v: v >= 2, "2 or more")
        check("vocab_size", lambda v: v >= 2, "2 or more")
        check("eos_token_id", lambda v: v is None or 1 <= v < self.vocab_size, "1 to vocab_size - 1")
        check("keep_alive_s", lambda v: 0 < v < 1e9, "a number above 0")
        return found


@dataclass(frozen=True)
class ServerSettings(ServerModel):
    """One server. speed divides all its times. faults: their `server` is not looked at."""

    speed: float = _setting(1.0, "divides all times: 0.5 is a server half as fast")
    faults: tuple[Fault, ...] = ()

    def _problems(self) -> list[str]:
        found = super()._problems()
        if not 0 < self.speed < 1e9:
            found.append(f"speed: {self.speed!r} cannot be used; write a number above 0")
        return found

    def to_arguments(self) -> list[str]:
        """The command line of `python -m lbrun.embedded` that gives these settings."""
        arguments: list[str] = []
        for f in fields(self):
            value = getattr(self, f.name)
            flag = "--" + f.name.replace("_", "-")
            if f.name == "faults":
                arguments += [part for fault in value for part in ("--fault", fault.without_server())]
            elif isinstance(value, bool):
                arguments.append(flag if value else flag.replace("--", "--no-", 1))
            elif value is not None:
                # with "=", a value that begins with a dash is not taken for an option
                arguments.append(f"{flag}={value}")
        return arguments


@dataclass(frozen=True)
class EmbeddedSettings(ServerModel):
    """A pool of servers that differ in speed and faults only.

    count: servers. speeds: one factor per server; servers beyond its end have speed 1.
    faults: each names its server by index.
    """

    count: int = 3
    speeds: tuple[float, ...] = ()
    faults: tuple[Fault, ...] = ()

    def _problems(self) -> list[str]:
        found = super()._problems()
        if self.count < 1:
            found.append(f"count: {self.count!r} cannot be used; write 1 or more")
        if len(self.speeds) > self.count:
            found.append(f"speeds: {len(self.speeds)} values for {self.count} servers; write one per server")
        found += [
            f"speeds[{i}]: {speed!r} cannot be used; write a number above 0"
            for i, speed in enumerate(self.speeds)
            if not 0 < speed < 1e9
        ]
        found += [
            f"faults[{i}]: there is no server {fault.server}; write 0 to {self.count - 1}"
            for i, fault in enumerate(self.faults)
            if fault.server >= self.count
        ]
        return found

    def server(self, index: int) -> ServerSettings:
        """The settings of one server of the pool."""
        shared = {f.name: getattr(self, f.name) for f in fields(ServerModel)}
        if self.journal is not None:
            shared["journal"] = self.journal.replace("{server}", str(index))
        return ServerSettings(
            **shared,
            speed=self.speeds[index] if index < len(self.speeds) else 1.0,
            faults=tuple(fault for fault in self.faults if fault.server == index),
        )
