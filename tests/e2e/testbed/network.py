"""Hosts on a switch, and what goes wrong between them.

    with Network.make(hosts=8, rate="20mbit") as network:
        one, two = network.hosts[:2]
        with one.inside(): ...                  # this thread, and what it starts, is on that host
        with network.cut([one], [two]): ...     # and healed after the block

The switch is a bridge in a namespace of its own, so that neither the machine's firewall nor its other interfaces have
a part in it. A network has a number that is claimed while it lives; what an earlier holder left is removed first.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from tests.e2e.testbed import namespaces
from tests.e2e.testbed.namespaces import BedUnavailable, run

NUMBERS = range(64)
_BRIDGE = "switch"
_PORT = "eth0"
# a queue of a few frames, as a cheap router has it: bursts of several peers at once are lost there too
_QUEUE = ("burst", "32k", "latency", "400ms")


@dataclass(frozen=True)
class Host:
    """A machine with one address, and a firewall of its own."""

    namespace: str
    address: str

    def inside(self) -> AbstractContextManager[None]:
        """This thread is on the host while the block runs."""
        return namespaces.inside(self.namespace)

    @contextmanager
    def dropping(self, source: Host | None = None, share: float = 1.0) -> Iterator[None]:
        """Of the packets that arrive, from ``source`` or from anybody, this share is lost."""
        rule = ["INPUT", "-i", _PORT]
        if source is not None:
            rule += ["-s", source.address]
        if share < 1.0:
            rule += ["-m", "statistic", "--mode", "random", "--probability", f"{share:.3f}"]
        rule += ["-j", "DROP"]
        self._firewall("-A", rule)
        try:
            yield
        finally:
            self._firewall("-D", rule)

    def _firewall(self, change: str, rule: Sequence[str]) -> None:
        with self.inside():
            run("iptables", "--wait", change, *rule)


class Network:
    """Hosts that reach each other. Made by ``Network.make``."""

    def __init__(self, number: int, hosts: list[Host]) -> None:
        self.number = number
        self.hosts = hosts

    @classmethod
    @contextmanager
    def make(cls, hosts: int, *, rate: str = "") -> Iterator[Network]:
        """``rate``: what each host can send and receive, such as ``20mbit``. Raises BedUnavailable."""
        namespaces.check_abilities()
        with _claimed_number() as number:
            prefix = f"bed{number}-"
            try:
                _remove_all(prefix)
                yield cls(number, _build(prefix, number, hosts, rate))
            finally:
                _remove_all(prefix)

    @contextmanager
    def cut(self, here: Iterable[Host], there: Iterable[Host], *, one_way: bool = False) -> Iterator[None]:
        """Nothing gets from ``here`` to ``there``, nor (unless ``one_way``) the other way round."""
        with ExitStack() as stack:
            for source, target in [(source, target) for source in here for target in there]:
                stack.enter_context(target.dropping(source))
                if not one_way:
                    stack.enter_context(source.dropping(target))
            yield


def _build(prefix: str, number: int, count: int, rate: str) -> list[Host]:
    switch = prefix + "switch"
    namespaces.make(switch)
    run("ip", "-n", switch, "link", "add", "name", _BRIDGE, "type", "bridge")
    run("ip", "-n", switch, "link", "set", "dev", _BRIDGE, "up")
    hosts = []
    for at in range(1, count + 1):
        host = Host(f"{prefix}{at}", f"10.{200 + number // 256}.{number % 256}.{at}")
        port = f"port{at}"
        namespaces.make(host.namespace)
        run(
            *("ip", "-n", switch, "link", "add", "name", port),
            *("type", "veth", "peer", "name", _PORT, "netns", host.namespace),
        )
        run("ip", "-n", switch, "link", "set", "dev", port, "master", _BRIDGE, "up")
        run("ip", "-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", _PORT)
        run("ip", "-n", host.namespace, "link", "set", "dev", _PORT, "up")
        if rate:
            for namespace, device in ((switch, port), (host.namespace, _PORT)):
                run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", "rate", rate, *_QUEUE)
        hosts.append(host)
    return hosts


def _remove_all(prefix: str) -> None:
    for name in namespaces.names_with(prefix):
        namespaces.remove(name)


@contextmanager
def _claimed_number() -> Iterator[int]:
    """The lowest number that no living process has: a name in the kernel, which goes with its process."""
    with socket.socket(socket.AF_UNIX) as claim:
        for number in NUMBERS:
            try:
                claim.bind(f"\0infra-testbed-{number}")
            except OSError:
                continue
            yield number
            return
        raise BedUnavailable(f"all {len(NUMBERS)} networks are in use")
