"""A request format put together from its three parts: request body, reader, payload."""

from __future__ import annotations

from collections.abc import Callable

from lbrun.attempt import Answer
from lbrun.datasets.api import Sample
from lbrun.formats.bounds import INT32_END, Bounds, asked_tokens
from lbrun.formats.options import FormatOptions
from lbrun.formats.payload import make_payload
from lbrun.formats.reading import Reader, to_answer
from lbrun.formats.stream import SseDecoder


class JsonFormat:
    """Implements `lbrun.formats.api.RequestFormat`.

    left_out: sampling keys that the backend does not know and that are therefore not sent. max_tokens: that a
    request asks for at most.
    """

    def __init__(
        self,
        name: str,
        path: str,
        options: FormatOptions,
        *,
        body: Callable[[Sample], bytes],
        reader: Reader,
        left_out: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.path = path
        self.stream = options.stream
        self.left_out = left_out
        self._body = body
        self._reader = reader
        extra = options.extra_body
        self._bounds = Bounds(
            asked_tokens(options.sampling, extra, extra.get("sampling_params") or {}),
            options.vocab_size or INT32_END,
        )
        self.max_tokens = self._bounds.max_tokens
        self._payload = make_payload(options, self._bounds)
        self._max_event_bytes = options.max_event_bytes
        self._max_gathered_bytes = options.max_gathered_bytes

    def encode(self, sample: Sample) -> bytes:
        """The request body, the same bytes each time. Raises ValueError for a sample it cannot express."""
        return self._body(sample)

    def decode(self, body: bytes) -> Answer:
        """Read a whole answer of status 200. Raises BadAnswer."""
        return to_answer(self._reader.whole(body), self._payload, self._bounds)

    def stream_decoder(self) -> SseDecoder:
        """A new decoder for one streamed answer."""
        return SseDecoder(
            self._reader,
            self._payload,
            self._bounds,
            max_event_bytes=self._max_event_bytes,
            max_gathered_bytes=self._max_gathered_bytes,
        )
