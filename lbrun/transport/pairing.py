"""Whether an answer belongs to the request that it comes for. Pure.

HTTP/1.1 pairs answers with requests by their order alone. A server, or a proxy before it, that sends one
answer too many shifts all later ones on that connection. Three things in an answer can tell:

- the id of the request: vLLM puts that of ``X-Request-Id`` into the body, others send the header back;
- ``usage.prompt_tokens``, where the prompt was sent as token ids and its length is known;
- what it says: byte by byte what the connection's last answer said, which was to another request.

What cannot be told: a stream without ids, in pieces, of a prompt as long as the other. Such a server is found
out when it sends bytes that nobody asked for (`lbrun.transport.worker`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lbrun.attempt import BadAnswer, FailureKind
from lbrun.transport.refusal import header

LOOKED_AT = 256
"""Bytes of a body in which the id is looked for; it is in the first field."""
COMPARED = 4096
"""Bytes of an answer that are compared with the last one."""

_OWN = re.compile(rb"lbrun-[0-9a-f]+-[0-9]+z")
_LEARNING = 64
"""Answers in a row without an id until the server is known not to send it back."""
_SURE = 32
"""Prompts, each of another length than the one before, that a server must have counted right to be sure."""


class Pairing:
    """What is known of one server's answers. looks_at_id, compares: whether that is of use with it."""

    __slots__ = ("_agreed", "_counts_otherwise", "_doubted", "_first", "_last_length", "_left", "_varies",
                 "compares", "looks_at_id")  # fmt: skip

    def __init__(self, *, has_id: bool = True) -> None:
        """has_id: requests carry an id of ours."""
        self.looks_at_id = has_id
        self.compares = True
        self._left = _LEARNING
        self._first: tuple[bytes, int] | None = None  # the first answer on a new connection, and its sample
        self._doubted: bytes | None = None
        self._varies = False
        self._agreed = 0
        self._last_length = -1
        self._counts_otherwise = False

    def check_id(self, own: bytes, headers: Mapping[bytes, bytes], start: bytes) -> None:
        """Check the id of an answer. Raises BadAnswer (MISMATCH) for that of another request.

        own: the request's id. headers, start: of the answer, the latter of its body.
        """
        if start.find(own, 0, LOOKED_AT) >= 0:
            found = True
        else:
            said = header(headers, b"x-request-id") or b""
            other = _OWN.search(start, 0, LOOKED_AT) or _OWN.fullmatch(said)
            found = said == own
            if other and not found:
                raise _mismatch(f"the answer is to request {other[0].decode()}, not to {own.decode()}")
        if found:
            self._left = _LEARNING
            self.compares = False  # nothing tells more than the id
            return
        self._left -= 1
        self.looks_at_id = self._left > 0

    def check_prompt(self, length: int, counted: int, reused: bool) -> None:
        """Check the server's count of a prompt's tokens. Raises BadAnswer (MISMATCH).

        A server may count otherwise. That shows by the first answer on a connection, which cannot be shifted.
        reused: it was not the first.
        """
        if counted == length:
            if length != self._last_length and self._agreed < _SURE:
                self._last_length = length
                self._agreed += 1
        elif self._counts_otherwise:
            return
        elif self._agreed >= _SURE or (reused and self._agreed):
            raise _mismatch(f"the answer counts {counted} prompt tokens, and {length} were sent")
        elif not reused:
            self._counts_otherwise = True

    def check_repeat(self, said: bytes, sample: int, last: tuple[bytes, int] | None) -> None:
        """Check that an answer does not repeat the connection's last one. Raises BadAnswer (MISMATCH).

        Nothing is doubted before two answers have differed. A server that at times says the same to different
        requests is known by the first answers on two connections, or by what was doubted once; it is believed
        from then on. last: what the connection brought before, and for which sample; None for its first one.
        """
        if last is None:
            first = self._first
            if first is None:
                self._first = (said, sample)
            elif sample != first[1]:
                self._varies = self._varies or said != first[0]
                self.compares = said not in (first[0], self._doubted)
        elif said != last[0]:
            self._varies = True
        elif sample != last[1] and self._varies:
            if said == self._doubted:
                self.compares = False
                return
            self._doubted = said
            raise _mismatch("the answer repeats the connection's last one, which was to another request")


def _mismatch(message: str) -> BadAnswer:
    return BadAnswer(FailureKind.MISMATCH, message)


def is_unasked(data: bytes) -> bool:
    """Bytes on a connection at rest are an answer too many.

    Line ends are none, nor is a proxy's 408, which says that it is about to close the connection.
    """
    return bool(data.strip()) and not data.startswith((b"HTTP/1.1 408 ", b"HTTP/1.0 408 "))
