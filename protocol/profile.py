"""What a node is and what its operator allows: given to the peer once, by the driver."""

from __future__ import annotations

import msgspec

from protocol.identity import PeerId
from protocol.records import JobSpec
from protocol.wire import Needs


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What may run here. Empty tuples allow everybody and everything."""

    submitters: tuple[PeerId, ...] = ()
    images: tuple[str, ...] = ()
    """Prefixes of container images."""
    accept_work: bool = True
    """False makes a node that only submits and stewards."""

    def refuses(self, submitter: PeerId, needs: Needs) -> str | None:
        """Why a task of this submitter may not run here; None if it may."""
        if not self.accept_work:
            return "this node takes no work"
        if self.submitters and submitter not in self.submitters:
            return "submitter denied by policy"
        if needs.image and self.images and not needs.image.startswith(self.images):
            return "image denied by policy"
        return None

    def refuses_job(self, spec: JobSpec) -> str | None:
        """Why this node stewards no job of this submitter; None if it does."""
        if self.submitters and spec.submitter not in self.submitters:
            return "submitter denied by policy"
        return None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is."""

    mesh: str
    store: bytes
    """16 random bytes drawn when the node's store was made: a new disk is a new holder."""
    addresses: tuple[str, ...] = ()
    """Multiaddresses with the peer id at the end."""
    cpu_milli: int = 1000
    memory_bytes: int = 1 << 30
    slots: int = 1
    """Tasks that may run at once."""
    isolation: tuple[str, ...] = ("namespace",)
    """Levels at which a model without an image (``namespace`` or ``landlock``) or with one (``container``) runs."""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    version: str = ""
    admitted: tuple[PeerId, ...] = ()
    """Keys of a private mesh; empty admits everybody."""
    policy: Policy = Policy()

    def runs_sandboxed(self) -> bool:
        return any(level != "container" for level in self.isolation)

    def cannot_run(self, needs: Needs) -> str | None:
        """Why a stage with these needs can never run on this machine; None if it can.

        Whoever runs a stage's shards also runs its split and merge, which are built in and need the sandbox.
        """
        if not self.runs_sandboxed():
            return "no sandbox for the built-in split and merge"
        if needs.image and "container" not in self.isolation:
            return "no container engine here, and the model needs an image"
        if needs.isolation and needs.isolation not in self.isolation:
            return f"isolation {needs.isolation} wanted, {' and '.join(self.isolation)} here"
        if not needs.image and needs.isolation == "container":
            return "isolation container wanted, and the model names no image"
        if needs.cpu_milli > self.cpu_milli:
            return f"cpu {self.cpu_milli / 1000:g} < {needs.cpu_milli / 1000:g}"
        if needs.memory_bytes > self.memory_bytes:
            return f"memory {in_gib(self.memory_bytes)} < {in_gib(needs.memory_bytes)} GiB"
        return None


def in_gib(size: int) -> str:
    """A number of bytes in GiB, short."""
    return f"{size / (1 << 30):.3g}" if size < (1000 << 30) else f"{size / (1 << 30):.0f}"
