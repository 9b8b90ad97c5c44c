"""A local mesh's nodes are found where they were found before."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from meshnode.devmesh import PORT_FILE, ports_of


def homes(folder: Path, *kept: str) -> list[Path]:
    made = [folder / f"node{number}" for number in range(len(kept))]
    for home, text in zip(made, kept, strict=True):
        home.mkdir()
        if text:
            (home / PORT_FILE).write_text(text)
    return made


def test_a_home_keeps_its_port(tmp_path: Path) -> None:
    first = ports_of(homes(tmp_path, "", "", ""))
    assert len(set(first)) == 3
    for number, port in enumerate(first):
        (tmp_path / f"node{number}" / PORT_FILE).write_text(f"{port}\n")
    assert ports_of([tmp_path / f"node{number}" for number in range(3)]) == first


def test_a_port_that_somebody_else_has_taken_is_replaced(tmp_path: Path) -> None:
    (port,) = ports_of(homes(tmp_path, ""))
    (tmp_path / "node0" / PORT_FILE).write_text(f"{port}\n")
    with socket.create_server(("127.0.0.1", port)):
        assert ports_of([tmp_path / "node0"]) != [port]


def test_two_homes_never_share_one(tmp_path: Path) -> None:
    assert len(set(ports_of(homes(tmp_path, "16000", "16000")))) == 2


@pytest.mark.parametrize("text", ["", "x", "80", "99999999", "\udcff"])
def test_a_port_that_cannot_be_meant_is_not_taken(tmp_path: Path, text: str) -> None:
    (home,) = homes(tmp_path, "")
    (home / PORT_FILE).write_bytes(text.encode(errors="surrogateescape"))
    assert ports_of([home]) != [80]
