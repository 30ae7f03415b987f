"""The syntax of Server-Sent Events (WHATWG HTML, section 9.2), for bodies whose line ends are LF alone."""

from __future__ import annotations

BLANK_LINE = b"\n\n"
_LF = 10
_BOM = b"\xef\xbb\xbf"


def event_data(event: bytes) -> bytes:
    """The data of one event, given without the blank line that ends it.

    b"" for a comment, a keep-alive, or an event without data. Several ``data`` lines are joined by LF;
    the space after the colon is optional; every other field is left out.
    """
    if event.startswith(b"data:") and b"\n" not in event:
        return event[6:] if event.startswith(b" ", 5) else event[5:]
    lines = []
    for line in event.removeprefix(_BOM).split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines)


def is_end_mark(data: bytes) -> bool:
    """Whether an event's data is OpenAI's mark for the end of a stream."""
    return data.strip() == b"[DONE]"


def find_end_mark(block: bytes) -> int:
    """Where the event with the end mark starts in a block of complete events, -1 if there is none.

    Looks at the last KiB only: nothing of that length follows an end mark.
    """
    found = block.find(b"[DONE]", max(len(block) - 1024, 0))
    while found >= 0:
        before = block.rfind(BLANK_LINE, 0, found)
        start = before + len(BLANK_LINE) if before >= 0 else 0
        stop = block.find(BLANK_LINE, found)
        if is_end_mark(event_data(block[start:stop])):
            return start
        found = block.find(b"[DONE]", stop)
    return -1


def data_array(block: bytes) -> bytes:
    """The data of all events of a block, as a JSON array.

    Almost every server writes nothing but ``data: {...}`` lines, each followed by an empty one; that their
    line ends are two an event tells it, and then commas can take their place in one go.
    """
    separator = b"\n\ndata: "
    plain = block.startswith(b"data: ") and b"data: \n" not in block
    if plain and block.count(b"\n") == 2 * (block.count(separator) + 1):
        return b"[" + block[6:-2].replace(separator, b",") + b"]"
    found = [event_data(event) for event in block.split(BLANK_LINE)]
    return b"[" + b",".join([data for data in found if data]) + b"]"


def end_of_events(data: bytes, start: int) -> int:
    """Where the last complete event of `data` ends, its blank line included; 0 if none is complete.

    start: how much of `data` is known to hold no complete event. Most reads end with an event, so that
    looking at the last line end is enough, which is a search at the speed of memrchr.
    """
    end = data.rfind(b"\n", start) + 1
    if end < 2:
        return 0
    if data[end - 2] == _LF:
        return end
    found = data.rfind(BLANK_LINE, max(start - 1, 0))
    return found + len(BLANK_LINE) if found >= 0 else 0


def last_events(block: bytes, count: int) -> bytes:
    """The last `count` events of a block of complete events, `count` at least 1.

    Goes by line ends rather than by blank lines: a search for one byte is several times faster, which
    counts where an event has 100 KB.
    """
    start, stop = 0, len(block) - len(BLANK_LINE)
    while count:
        start = block.rfind(b"\n", 0, max(stop, 0)) + 1
        if start < 2:
            return block
        stop = start - 1
        if block[stop - 1] == _LF:
            stop -= 1
            count -= 1
    return block[start:]


def unify_line_ends(data: bytes, after_cr: bool) -> tuple[bytes, bool]:
    """The next bytes of the body with LF as the only line end, and whether they ended with CR.

    after_cr: what the call before returned, so that a CRLF may be split. JSON has no raw CR to lose.
    """
    if after_cr and data.startswith(b"\n"):
        data = data[1:]
    after_cr = data.endswith(b"\r")
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), after_cr
