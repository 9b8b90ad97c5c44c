"""What a node says of its health."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshnode.blobs.store import Usage
from meshnode.doctor import examine
from meshnode.execution.offering import Offer
from protocol.identity import PeerId
from protocol.peer import PeerSnapshot
from protocol.records import Capability

FINE = PeerSnapshot(
    peer_id=PeerId("me"),
    mesh="mesh",
    incarnation=1,
    capability=Capability(
        peer=PeerId("me"),
        mesh="mesh",
        incarnation=1,
        revision=1,
        store=bytes(16),
        cpu_milli=1,
        memory_bytes=1,
        issued_at=1,
        not_after=2,
    ),
    neighbours=(PeerId("other"),),
    known=(),
    mesh_size=2,
    clock_offset_ms=3,
    clock_wrong=None,
    visible=True,
    stewarding=(),
    leases=0,
    runs=0,
    tables={},
)


class _Sandbox:
    name = "sandbox"
    isolation = "namespace"


def health(tmp_path: Path, *, reserve: int = 0, **changes: Any) -> dict[str, dict[str, Any]]:
    fields = {name: changes.pop(name, getattr(FINE, name)) for name in FINE.__struct_fields__}
    found = examine(
        snapshot=PeerSnapshot(**fields),
        offer=changes.pop("offer", Offer(_Sandbox(), None, ())),  # type: ignore[arg-type]
        usage=Usage(1, 1, 0, 1 << 30),
        home=tmp_path,
        listening=changes.pop("listening", ["/ip4/127.0.0.1/tcp/1"]),
        joins=changes.pop("joins", ["/ip4/10.0.0.7/tcp/4001/p2p/x"]),
        reserve=reserve,
    )
    assert found["ok"] == all(check["ok"] for check in found["checks"])
    return {check["name"]: check for check in found["checks"]}


def test_a_node_that_works(tmp_path: Path) -> None:
    assert all(check["ok"] for check in health(tmp_path).values())


@pytest.mark.parametrize(
    ("changes", "name", "says"),
    [
        ({"neighbours": ()}, "mesh", "is /ip4/10.0.0.7/tcp/4001/p2p/x up"),
        ({"visible": False}, "visible", "no other peer reaches this node"),
        ({"clock_wrong": "this node's clock is 86400 s ahead"}, "clock", "86400 s ahead"),
        ({"listening": []}, "listening", "cannot reach"),
        ({"reserve": 1 << 60}, "disk", "no new work is taken"),
        ({"offer": Offer(None, None, ("no bubblewrap",))}, "runtimes", "no bubblewrap"),
    ],
)
def test_what_keeps_a_node_from_working_is_named(tmp_path: Path, changes: dict[str, Any], name: str, says: str) -> None:
    check = health(tmp_path, **changes)[name]
    assert not check["ok"]
    assert says in check["text"]


def test_the_first_node_of_a_mesh_is_fine_alone(tmp_path: Path) -> None:
    assert health(tmp_path, neighbours=(), joins=[])["mesh"]["ok"]
