"""A network that loses, delays and holds back packets: two network namespaces and a wire between them.

The client is on one side, the servers on the other, each server with an address of its own. Both ends of the
wire are TUN devices, and this process carries every packet from one to the other, or does not. That needs
root, and no module of the kernel's packet scheduler.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_DEVICE = "lbwire"
_CLIENT = "10.77.0.1"
_SERVER = "10.77.0.1{}"
_MTU = 65_535
_SYN, _ACK = 0x02, 0x10

_numbers = itertools.count()

_T = TypeVar("_T")


def no_namespaces() -> str | None:
    """Why this machine cannot have such a network; None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no ip command (iproute2)"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    try:
        probe = Namespace("probe")
    except OSError as error:
        return f"no network namespace: {error}"
    probe.close()
    return None


class Namespace:
    """A network namespace with a loopback of its own, and a thread that lives in it."""

    def __init__(self, name: str) -> None:
        self.name = f"lbrun-{name}-{os.getpid()}-{next(_numbers)}"
        _ip("netns", "add", self.name)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self.name)
        try:
            self.call(lambda: _enter(self.name))
            _ip("-n", self.name, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def call(self, work: Callable[[], _T]) -> _T:
        """Do something inside; sockets made there stay there."""
        return self._thread.submit(work).result()

    @property
    def wrapper(self) -> Sequence[str]:
        """A command that runs another one inside."""
        return ("ip", "netns", "exec", self.name)

    def close(self) -> None:
        """Remove it; it vanishes with its last socket."""
        self._thread.shutdown()
        _ip("netns", "del", self.name)


@dataclass(slots=True)
class Link:
    """How packets between the client and one server fare. loss: share that is lost."""

    cut: bool = False
    delay_s: float = 0.0
    loss: float = 0.0
    _age: int = 0
    _born: dict[int, int] = field(default_factory=dict)

    def forget(self) -> None:
        """Lose all packets of the connections that there are, as a firewall does that was restarted."""
        self._age += 1

    def passes(self, packet: bytes, from_client: bool, chance: random.Random) -> bool:
        """Whether an IPv4 packet gets through."""
        if self.cut or (self.loss and chance.random() < self.loss):
            return False
        tcp = packet[(packet[0] & 15) * 4 :]
        if packet[9] != socket.IPPROTO_TCP or len(tcp) < 20:
            return True
        (port,) = struct.unpack_from("!H", tcp, 0 if from_client else 2)
        if tcp[13] & (_SYN | _ACK) == _SYN:
            self._born[port] = self._age
        return self._born.get(port, self._age) == self._age


class Network:
    """Client, wire and `n` servers. links[i]: of server i, to be changed at any time."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.links = [Link() for _ in range(n)]
        self._random = random.Random(seed)  # noqa: S311 - which packets are lost
        self._by_address = {socket.inet_aton(_SERVER.format(i)): self.links[i] for i in range(n)}
        self._closing = False
        self.client = Namespace("client")
        self.far = Namespace("servers")
        self._ends = (self.client.call(_open_tun), self.far.call(_open_tun))
        _set_up(self.client.name, [_CLIENT])
        _set_up(self.far.name, [_SERVER.format(i) for i in range(n)])
        self._carrier = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._carrier.start()

    def bind(self, index: int, port: int) -> socket.socket:
        """A socket at server `index`'s address, for `lbrun.embedded.pool.EmbeddedPool`."""

        def make() -> socket.socket:
            bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((_SERVER.format(index), port))
            return bound

        return self.far.call(make)

    def close(self) -> None:
        """Remove everything."""
        self._closing = True
        self._carrier.join()
        for end in self._ends:
            os.close(end)
        self.client.close()
        self.far.close()

    def _carry(self) -> None:
        """Move packets until the end."""
        near, far = self._ends
        late: list[tuple[float, int, int, bytes]] = []
        n = 0
        while not self._closing:
            wait_s = 0.1 if not late else min(0.1, max(0.0, late[0][0] - time.monotonic()))
            readable, _, _ = select.select(self._ends, [], [], wait_s)
            for end in readable:
                packet = os.read(end, _MTU)
                link = self._link(packet)
                if link is None or not link.passes(packet, end == near, self._random):
                    continue
                other = far if end == near else near
                if link.delay_s:
                    n += 1
                    heapq.heappush(late, (time.monotonic() + link.delay_s, n, other, packet))
                else:
                    _write(other, packet)
            now_s = time.monotonic()
            while late and late[0][0] <= now_s:
                _, _, other, packet = heapq.heappop(late)
                _write(other, packet)

    def _link(self, packet: bytes) -> Link | None:
        """The link that an IPv4 packet travels on; None for other packets."""
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return None
        return self._by_address.get(packet[16:20]) or self._by_address.get(packet[12:16])


def _write(end: int, packet: bytes) -> None:
    try:
        os.write(end, packet)
    except BlockingIOError:  # a full device loses packets, as they do
        return


def _open_tun() -> int:
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH14x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return end


def _set_up(namespace: str, addresses: Sequence[str]) -> None:
    for address in addresses:
        _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", _DEVICE)
    _ip("-n", namespace, "link", "set", _DEVICE, "up")


def _ip(*arguments: str) -> None:
    """Run iproute2. Raises OSError with what it said."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _enter(name: str) -> None:
    """Move the calling thread into a namespace. Raises OSError."""
    with (Path("/var/run/netns") / name).open("rb") as file:
        libc: Any = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
