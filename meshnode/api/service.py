"""The API's operations over a node, whatever the transport: values in, JSON values out, ApiError for the rest."""

from __future__ import annotations

from typing import Any

from meshnode.api.core import Core
from meshnode.api.jobs import Jobs
from meshnode.api.models import Models
from meshnode.api.ports import ApiNode
from protocol.fitness import PRICE_UNITS
from protocol.records import Capability
from protocol.show import show_time

Json = dict[str, Any]


class Service:
    """What a node does for its clients."""

    def __init__(self, node: ApiNode) -> None:
        core = Core(node)
        self.node = node
        self.jobs = Jobs(core)
        self.models = Models(core)

    def info(self) -> Json:
        snapshot = self.node.snapshot()
        return {
            "node_id": snapshot.peer_id,
            "mesh": snapshot.mesh,
            "version": snapshot.capability.version,
            "addresses": list(snapshot.capability.addresses),
            "neighbours": list(snapshot.neighbours),
            "peers_known": len(snapshot.known),
            "mesh_size": snapshot.mesh_size,
            "clock_offset_ms": snapshot.clock_offset_ms,
            "clock_wrong": snapshot.clock_wrong,
            "jobs": len(snapshot.stewarding),
            "leases": snapshot.leases,
            "runs": snapshot.runs,
            "wall": show_time(self.node.wall()),
        }

    async def doctor(self) -> Json:
        return await self.node.doctor()

    def peers(self) -> list[Json]:
        """This node first, then all whom it knows."""
        snapshot = self.node.snapshot()
        neighbours = set(snapshot.neighbours)
        return [
            _peer(snapshot.capability, "self"),
            *(
                _peer(capability, "neighbour" if capability.peer in neighbours else "known")
                for capability in sorted(snapshot.known, key=lambda capability: capability.peer)
            ),
        ]


def _peer(capability: Capability, relation: str) -> Json:
    return {
        "node_id": capability.peer,
        "relation": relation,
        "addresses": list(capability.addresses),
        "cpu": capability.cpu_milli / 1000,
        "memory_bytes": capability.memory_bytes,
        "isolation": list(capability.isolation),
        "labels": dict(capability.labels),
        "price": capability.price / PRICE_UNITS,
        "version": capability.version,
        "incarnation": capability.incarnation,
        "not_after": show_time(capability.not_after),
    }
