"""How long the transport waits, and how much it takes in."""

from __future__ import annotations

from dataclasses import dataclass, fields


def _refuse_not_positive(settings: object) -> None:
    for field in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if value is not None and not value > 0:
            raise ValueError(f"{field.name} must be greater than 0, not {value!r}")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds on the monotonic clock; None: no limit.

    connect_s: from the first packet of a new connection to its last of the TLS handshake, name resolution
    included. first_byte_s: from the request written to the first byte of the answer; servers that queue
    need a long one or none. idle_s: between two pieces of content of an answer. total_s: from the request
    written to the end of the answer; None: see `lbrun.transport.patience`. keepalive_s: an idle connection
    that is older is not used again; below the 5 s after which uvicorn (vLLM, SGLang) closes it, so that
    requests rarely race with that.

    Those on answers are looked after by a coarse sweep, so they come late by up to a tenth or half a second.
    """

    connect_s: float = 5.0
    first_byte_s: float | None = None
    idle_s: float | None = 60.0
    total_s: float | None = None
    keepalive_s: float = 4.0

    def __post_init__(self) -> None:
        _refuse_not_positive(self)

    def sweep_interval_s(self) -> float:
        """How often the deadlines of what is in flight have to be looked at."""
        limits = [t for t in (self.first_byte_s, self.idle_s, self.total_s) if t is not None]
        return min(0.5, max(0.01, min(limits, default=5.0) / 10))


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep a broken or hostile server from taking this machine down.

    max_head_bytes: status line and headers of one answer, interim (1xx) heads included. max_body_bytes: one
    answer as it came over the wire, framing included. max_connecting: connections being made at a time, all
    servers together; those that have hung for longer than `lbrun.transport.dial.SLOW_S` cost nothing any
    more and are not counted. max_connecting_per_server: the same at one server, all of them counted.
    """

    max_head_bytes: int = 64 * 1024
    max_body_bytes: int = 64 * 1024 * 1024
    max_connecting: int = 128
    max_connecting_per_server: int = 64

    def __post_init__(self) -> None:
        _refuse_not_positive(self)
