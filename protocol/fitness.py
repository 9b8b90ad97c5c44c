"""Can a machine ever run a stage? Judged alike by the machine itself and, from its record, by others."""

from __future__ import annotations

from typing import Protocol

from protocol.wire import Needs


class Machine(Protocol):
    """What a ``Profile`` and a ``Capability`` have in common."""

    @property
    def cpu_milli(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def isolation(self) -> tuple[str, ...]: ...


def lacks(machine: Machine, needs: Needs) -> str | None:
    """Why a stage with these needs can never run there, in a few words; None if it can.

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
    return None


def in_gib(size: int) -> str:
    """A number of bytes in GiB, short."""
    return f"{size / (1 << 30):.3g}" if size < (1000 << 30) else f"{size / (1 << 30):.0f}"
