"""Networks that lose, delay and hold back packets, and names that do not resolve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lbrun.faults.evidence import Evidence
from lbrun.faults.scenario import BACK_WITHIN_S, HUNG_OUT_WITHIN_S, Expected, Mode, Scenario
from lbrun.faults.stage import Stage
from lbrun.faults.wire import Network, no_namespaces

_N = 3
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FEW_PORTS = "40000 40007\n"
_IN_FLIGHT = 48
_NOTICED_WITHIN_S = 45.0
"""The kernel takes 30 s to give a silent connection up; then the samples are sent again."""


def _network(stage: Stage) -> Network:
    """Put the client on one side of a wire and the pool on the other."""
    network = Network(_N)
    stage.on_end.append(network.close)
    stage.open_pool(bind=network.bind, within=network.far.call)
    stage.wrapper = network.client.wrapper
    return network


def _partition(stage: Stage) -> None:
    network = _network(stage)
    stage.start()
    stage.until_busy(stage.VICTIM)
    stage.breaks(stage.VICTIM)
    network.links[stage.VICTIM].cut = True
    stage.until_out(stage.VICTIM)
    network.links[stage.VICTIM].cut = False
    stage.mends(stage.VICTIM)
    stage.until_back(stage.VICTIM)


def _half_open(stage: Stage) -> None:
    """The server's machine restarts while it cannot be reached, so that nobody tells the client."""
    network = _network(stage)
    stage.start()
    stage.until_busy(stage.VICTIM)
    stage.breaks(stage.VICTIM)
    network.links[stage.VICTIM].cut = True
    stage.servers.kill(stage.VICTIM)
    stage.servers.restart(stage.VICTIM)
    stage.until(lambda: stage.servers.answers(stage.VICTIM), "the server answers its neighbours")
    stage.servers.resume(stage.VICTIM)
    network.links[stage.VICTIM].cut = False


def _forgotten(stage: Stage) -> None:
    network = _network(stage)
    stage.start()
    stage.until_busy(stage.VICTIM)
    stage.breaks()
    network.links[stage.VICTIM].forget()


def _black_hole(stage: Stage) -> None:
    network = _network(stage)
    network.links[stage.VICTIM].cut = True
    stage.start()
    stage.until_busy(0)
    stage.breaks(stage.VICTIM)
    network.links[stage.VICTIM].cut = False
    stage.mends(stage.VICTIM)
    stage.until_back(stage.VICTIM)


def _all_cut_off(stage: Stage) -> None:
    """The client's own cable."""
    network = _network(stage)
    stage.start()
    stage.until_busy(*range(_N))
    stage.breaks(*range(_N))
    for link in network.links:
        link.cut = True
    stage.until_out(*range(_N))
    for link in network.links:
        link.cut = False
    stage.mends(*range(_N))
    stage.until_back(*range(_N))


def _bad_link(*, delay_s: float = 0.0, loss: float = 0.0) -> Callable[[Stage], None]:
    def act(stage: Stage) -> None:
        network = _network(stage)
        stage.start(slow=False)
        stage.until_running()
        link = network.links[stage.VICTIM]
        link.delay_s, link.loss = delay_s, loss

    return act


def _few_ports(stage: Stage) -> None:
    network = _network(stage)
    network.client.call(lambda: _PORT_RANGE.write_text(_FEW_PORTS))
    stage.start(f"servers.max_in_flight={_IN_FLIGHT}", slow=False)


def _unresolved(stage: Stage) -> None:
    stage.open_pool()
    stage.urls = [*stage.urls, "http://no-such-host.invalid:8000"]
    stage.start(slow=False)


def _hung_and_went_on(evidence: Evidence) -> list[str]:
    """Requests on the forgotten connections failed as lost, and nothing else did."""
    met = {attempt["failure"] for row in evidence.rows for attempt in row["attempts"] or ()} - {None}
    return [] if met and met <= {"LOST_BEFORE_BYTE", "CUT", "EVICTED"} else [f"attempts failed as {met}"]


def _ran_out_of_ports(evidence: Evidence) -> list[str]:
    met = {attempt["failure"] for row in evidence.rows for attempt in row["attempts"] or ()}
    return [] if "LOCAL" in met else [f"no attempt was short of a port; failures: {met or 'none'}"]


SCENARIOS = (
    Scenario(
        name="partition",
        about="one server's packets vanish both ways, then the network is whole again",
        act=_partition,
        expected=Expected(out_within_s=HUNG_OUT_WITHIN_S, back_within_s=BACK_WITHIN_S),
        samples=2048,
        unless=no_namespaces,
    ),
    Scenario(
        name="client_cut_off",
        about="all packets vanish until every server is out, then the network is whole again",
        act=_all_cut_off,
        expected=Expected(out_within_s=HUNG_OUT_WITHIN_S, back_within_s=BACK_WITHIN_S),
        samples=2048,
        unless=no_namespaces,
    ),
    Scenario(
        name="half_open",
        about="one server is killed and started again while it is cut off: its connections are half open",
        act=_half_open,
        samples=2048,
        unless=no_namespaces,
    ),
    Scenario(
        name="forgotten_connections",
        about="a firewall forgets the connections to one server: their packets vanish, new ones pass",
        act=_forgotten,
        expected=Expected(ends_within_s=_NOTICED_WITHIN_S),
        bound_s=90.0,
        unless=no_namespaces,
        check=_hung_and_went_on,
    ),
    Scenario(
        name="black_hole",
        about="one server's packets vanish from before the start until the middle of the run",
        act=_black_hole,
        overrides=("servers.settle_s=1",),
        samples=2048,
        unless=no_namespaces,
    ),
    Scenario(
        name="delay",
        about="100 ms each way to one server",
        act=_bad_link(delay_s=0.1),
        expected=Expected(stays_in=True),
        unless=no_namespaces,
    ),
    Scenario(
        name="loss",
        about="5 % of the packets to and from one server are lost",
        act=_bad_link(loss=0.05),
        unless=no_namespaces,
    ),
    Scenario(
        name="few_ports",
        about="the client has 8 ports for 48 connections to each server",
        act=_few_ports,
        expected=Expected(stays_in=True),
        modes=(Mode.OFFLINE,),
        servers={"slots": 64, "ttft_base_ms": 100.0},
        samples=512,
        unless=no_namespaces,
        check=_ran_out_of_ports,
    ),
    Scenario(
        name="no_such_host",
        about="the name of one of four servers does not resolve",
        act=_unresolved,
        overrides=("servers.settle_s=1",),
        expected=Expected(says=("no-such-host.invalid",)),
        modes=(Mode.OFFLINE,),
        samples=256,
    ),
)
