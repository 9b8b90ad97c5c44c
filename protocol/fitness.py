"""Can a machine ever run a stage? Judged alike by the machine itself and, from its record, by others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from protocol.identity import PeerId
from protocol.wire import Needs, Placement

PRICE_UNITS = 1_000_000
"""Prices on the wire are millionths of the unit in which people state them."""


class Machine(Protocol):
    """What a ``Profile`` and a ``Capability`` have in common."""

    @property
    def cpu_milli(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def isolation(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> dict[str, str]: ...
    @property
    def price(self) -> int: ...


def lacks(machine: Machine, needs: Needs, peer: PeerId) -> str | None:
    """Why a stage with these needs can never run on the machine of ``peer``, in a few words; None if it can.

    Whoever runs a stage's shards also runs its split and merge, which are built in and need the sandbox.
    """
    if all(level == "container" for level in machine.isolation):
        return "no sandbox for the built-in split and merge"
    if needs.image and "container" not in machine.isolation:
        return "no container engine, and the model needs an image"
    if not needs.image and needs.isolation == "container":
        return "isolation container wanted, and the model names no image"
    if needs.isolation and needs.isolation not in machine.isolation:
        return f"isolation {needs.isolation} wanted, {' and '.join(machine.isolation)} here"
    if needs.cpu_milli > machine.cpu_milli:
        return f"cpu {machine.cpu_milli / 1000:g} < {needs.cpu_milli / 1000:g}"
    if needs.memory_bytes > machine.memory_bytes:
        return f"memory {in_gib(machine.memory_bytes)} < {in_gib(needs.memory_bytes)} GiB"
    return misplaced(machine.labels, needs.placement, peer) or too_dear(machine.price, needs)


def misplaced(labels: Mapping[str, str], placement: Placement, peer: PeerId) -> str | None:
    """Why a placement excludes a peer with these labels."""
    for key, value in placement.labels.items():
        if labels.get(key) != value:
            return f"{key} {value} wanted, {labels.get(key) or 'none'} here"
    if placement.only and not any(_is_at(labels, place, peer) for place in placement.only):
        return "not among the only places of the job"
    avoided = next((place for place in placement.avoid if _is_at(labels, place, peer)), None)
    if avoided is not None:
        return "a peer that the job avoids" if avoided == peer else f"the job avoids {avoided}"
    return None


def excludes(placement: Placement, peer: PeerId) -> str | None:
    """Why a placement excludes a peer whatever its labels are."""
    if peer in placement.avoid:
        return "a peer that the job avoids"
    if placement.only and peer not in placement.only and not any("=" in place for place in placement.only):
        return "not among the only places of the job"
    return None


def _is_at(labels: Mapping[str, str], place: str, peer: PeerId) -> bool:
    """Whether a place, a peer id or ``key=value``, is that of a peer with these labels."""
    key, equals, value = place.partition("=")
    return labels.get(key) == value if equals else place == peer


def too_dear(price: int, needs: Needs) -> str | None:
    """Why a price is more than is paid."""
    if needs.max_price is None or price <= needs.max_price:
        return None
    return f"price {price / PRICE_UNITS:g} > {needs.max_price / PRICE_UNITS:g}"


def in_gib(size: int) -> str:
    """A number of bytes in GiB, short."""
    return f"{size / (1 << 30):.3g}" if size < (1000 << 30) else f"{size / (1 << 30):.0f}"
