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
    price: int = 0
    """In millionths of the mesh's unit for one CPU and second."""
    version: str = ""
    admitted: tuple[PeerId, ...] = ()
    """Keys of a private mesh; empty admits everybody."""
    policy: Policy = Policy()
