"""What a machine lacks, in words for a person."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.fitness import lacks
from protocol.wire import Needs
from tests.protocol.lone import profile_of
from tests.protocol.samples import capability

GIB = 1 << 30
REASONS: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    ({}, {}, None),
    ({"memory_bytes": 16 * GIB}, {"memory_bytes": 16 * GIB}, None),
    ({"memory_bytes": 16 * GIB}, {"memory_bytes": 24 * GIB}, "memory 16 < 24 GiB"),
    ({"memory_bytes": GIB // 2}, {"memory_bytes": 2000 * GIB}, "memory 0.5 < 2000 GiB"),
    ({"cpu_milli": 1500}, {"cpu_milli": 2000}, "cpu 1.5 < 2"),
    ({"isolation": ("landlock",)}, {"isolation": "namespace"}, "isolation namespace wanted, landlock here"),
    (
        {"isolation": ("landlock", "container")},
        {"isolation": "namespace"},
        "isolation namespace wanted, landlock and container here",
    ),
    ({"isolation": ("namespace",)}, {"image": "r/n@sha256:0"}, "no container engine, and the model needs an image"),
    ({"isolation": ("namespace", "container")}, {"image": "r/n@sha256:0"}, None),
    ({"isolation": ("container",)}, {"image": "r/n@sha256:0"}, "no sandbox for the built-in split and merge"),
    ({"isolation": ()}, {}, "no sandbox for the built-in split and merge"),
    (
        {"isolation": ("namespace", "container")},
        {"isolation": "container"},
        "isolation container wanted, and the model names no image",
    ),
]


@pytest.mark.parametrize(("machine", "needs", "reason"), REASONS)
def test_a_machine_and_its_record_are_judged_alike(
    machine: dict[str, Any], needs: dict[str, Any], reason: str | None
) -> None:
    assert lacks(profile_of("ann", **machine), Needs(**needs)) == reason
    assert lacks(capability("ann", **machine).record, Needs(**needs)) == reason
