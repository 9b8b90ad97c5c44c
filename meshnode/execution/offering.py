"""Which ways of running tasks a node offers, found out by trying them when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trio

from meshnode.runtimes.base import ImagePolicy, Runtime, RuntimeUnavailable
from meshnode.runtimes.selection import select_runtime

Wanted = Literal["auto", "sandbox", "docker"]


@dataclass(frozen=True, slots=True)
class Offer:
    """The runtimes that work here, and why the others do not."""

    sandbox: Runtime | None
    containers: Runtime | None
    missing: tuple[str, ...]

    @property
    def isolation(self) -> tuple[str, ...]:
        """The levels at which this node runs tasks."""
        return tuple(runtime.isolation for runtime in (self.sandbox, self.containers) if runtime is not None)


async def find_runtimes(wanted: Wanted, *, home: Path, node_id: str, boot_id: str, image_policy: ImagePolicy) -> Offer:
    """Try what ``wanted`` allows: ``auto`` both, ``sandbox`` no engine, ``docker`` both and insists on the engine.

    A node with an engine wants the sandbox as well: split and merge always run in it. What earlier starts of this
    node left behind is removed. Raises RuntimeUnavailable when nothing works, or not what was insisted on.
    """
    found: dict[str, Runtime] = {}
    missing: dict[str, str] = {}

    async def attempt(kind: Literal["sandbox", "docker"]) -> None:
        try:
            runtime = await select_runtime(
                kind, home=home / kind, node_id=node_id, boot_id=boot_id, image_policy=image_policy
            )
        except RuntimeUnavailable as error:
            missing[kind] = str(error)
        else:
            await runtime.sweep()
            found[kind] = runtime

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt, "sandbox")
        if wanted != "sandbox":
            nursery.start_soon(attempt, "docker")
    if not found or (wanted == "docker" and "docker" in missing):
        raise RuntimeUnavailable(missing.get("docker") or missing["sandbox"])
    return Offer(found.get("sandbox"), found.get("docker"), tuple(missing[kind] for kind in sorted(missing)))
