"""Trouble for a mesh of real processes: what befalls which nodes, and when, drawn from a seed.

    troubles = draw(seed)
    with Storm(mesh, troubles).blowing():
        ...                                     # what must go well all the same

The draw is exact; when a process dies and how far it had come then is up to the machine. A trouble that would befall
a node which another one still has waits for it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random

from tests.e2e.testbed.mesh import BedMesh, BedNode

LOST_FOR_GOOD = 1
"""Nodes that never come back. No more than one holder of a job may, until its copy is repaired."""
END_WITHIN_S = 20.0


@dataclass(frozen=True)
class Kind:
    """How often a trouble comes, how long it lasts, how many nodes it befalls."""

    times: int
    seconds: tuple[float, float]
    nodes: tuple[int, int] = (1, 1)


KINDS = {
    "kill": Kind(5, (0.5, 9.0)),
    "stop": Kind(4, (1.0, 12.0)),
    "restart": Kind(3, (0.0, 2.0)),
    "partition": Kind(3, (2.0, 12.0), (1, 4)),
    "one-way": Kind(3, (2.0, 12.0), (1, 3)),
    "loss": Kind(4, (5.0, 20.0), (1, 3)),
    "power-cut": Kind(1, (0.0, 3.0)),
    "gone": Kind(LOST_FOR_GOOD, (0.0, 0.0)),
}


@dataclass(frozen=True)
class Trouble:
    at_s: float
    kind: str
    nodes: tuple[int, ...]
    for_s: float
    share: float = 1.0
    """Of packets that are lost."""

    def __str__(self) -> str:
        share = f" {self.share:.0%}" if self.share < 1.0 else ""
        return f"{self.at_s:6.1f} s  {self.kind}{share} of {', '.join(map(str, self.nodes))} for {self.for_s:.1f} s"


def draw(seed: int, *, nodes: int = 8, seconds: float = 80.0) -> list[Trouble]:
    """Troubles for so many nodes, spread over so many seconds; every kind comes as often as ``KINDS`` says."""
    rng = Random(seed)
    kinds = [name for name, kind in KINDS.items() for _ in range(kind.times)]
    rng.shuffle(kinds)
    troubles = []
    lost: set[int] = set()
    for number, name in enumerate(kinds):
        kind = KINDS[name]
        at_s = seconds * (number + rng.random()) / len(kinds)
        left = [node for node in range(nodes) if node not in lost]
        chosen = left if name == "power-cut" else sorted(rng.sample(left, rng.randint(*kind.nodes)))
        share = rng.uniform(0.02, 0.2) if name == "loss" else 1.0
        troubles.append(Trouble(at_s, name, tuple(chosen), rng.uniform(*kind.seconds), share))
        lost.update(chosen if name == "gone" else ())
    return troubles


class Storm:
    """Brings troubles over a mesh, each in a thread of its own."""

    def __init__(self, mesh: BedMesh, troubles: Sequence[Trouble]) -> None:
        self.mesh = mesh
        self._troubles = troubles
        self._began_at = 0.0
        self._abort = threading.Event()
        #: A node that is dead or stands still belongs to the trouble that did it.
        self._nodes = [threading.Lock() for _ in mesh.nodes]

    @contextmanager
    def blowing(self) -> Iterator[None]:
        """All troubles have come and gone when the block is left; if it raises, those that have not come do not."""
        self._began_at = time.monotonic()
        with ThreadPoolExecutor(max(1, len(self._troubles))) as pool:
            coming = [pool.submit(self._bring, trouble) for trouble in self._troubles]
            try:
                yield
            except BaseException:
                self._abort.set()
                raise
            for trouble in coming:
                trouble.result()

    def wait_until(self, at_s: float) -> bool:
        """Return at this time of the storm, or earlier with False if it is called off."""
        return not self._abort.wait(max(0.0, self._began_at + at_s - time.monotonic()))

    def _bring(self, trouble: Trouble) -> None:
        if not self.wait_until(trouble.at_s):
            return
        nodes = [self.mesh.nodes[number] for number in trouble.nodes]
        with ExitStack() as stack:
            match trouble.kind:
                case "kill" | "restart" | "power-cut" | "stop" | "gone":
                    for number in trouble.nodes:  # in order, so that no two wait for each other
                        stack.enter_context(self._nodes[number])
            match trouble.kind:
                case "kill" | "power-cut":
                    stack.enter_context(self._dead(nodes, signal.SIGKILL))
                case "restart":
                    stack.enter_context(self._dead(nodes, signal.SIGTERM))
                case "gone":
                    nodes[0].kill()
                case "stop":
                    stack.enter_context(nodes[0].stopped())
                case "partition" | "one-way":
                    rest = [node.host for node in self.mesh.nodes if node not in nodes]
                    here, one_way = [node.host for node in nodes], trouble.kind == "one-way"
                    stack.enter_context(self.mesh.network.cut(here, rest, one_way=one_way))
                case "loss":
                    for node in nodes:
                        stack.enter_context(node.host.dropping(share=trouble.share))
            self._abort.wait(trouble.for_s)

    @contextmanager
    def _dead(self, nodes: Sequence[BedNode], number: signal.Signals) -> Iterator[None]:
        """The nodes have ended while the block runs, and are then started again with all that they had on disk."""
        ended = [node for node in nodes if node.running]  # one may be gone for good
        for node in ended:
            node.process.send_signal(number)
        for node in ended:
            node.process.wait(END_WITHIN_S)
        yield
        self.mesh.restart(*ended, meet=False)
