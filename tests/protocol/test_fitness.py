"""What a machine lacks, in words for a person."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.fitness import lacks
from protocol.wire import Needs, Placement
from tests.protocol.lone import peer, profile_of
from tests.protocol.samples import capability

GIB = 1 << 30
ANN, BOB = peer("ann"), peer("bob")


def at(**fields: Any) -> dict[str, Any]:
    return {"placement": Placement(**fields)}


IN_EU: dict[str, Any] = {"labels": {"region": "eu", "gpu": "a100"}}
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
    (IN_EU, at(labels={"region": "eu", "gpu": "a100"}), None),
    (IN_EU, at(labels={"region": "us"}), "region us wanted, eu here"),
    ({"labels": {}}, at(labels={"region": "us"}), "region us wanted, none here"),
    (IN_EU, at(only=("region=us", "region=eu")), None),
    ({"labels": {}}, at(only=(BOB, ANN)), None),
    (IN_EU, at(only=("region=us", BOB)), "not among the only places of the job"),
    (IN_EU, at(avoid=(BOB, "region=us", "gpu=")), None),
    (IN_EU, at(avoid=(BOB, "region=eu")), "the job avoids region=eu"),
    (IN_EU, at(avoid=(ANN,)), "a peer that the job avoids"),
    (IN_EU, at(only=(ANN,), avoid=(ANN,)), "a peer that the job avoids"),
    ({"price": 500_000}, {"max_price": 500_000}, None),
    ({"price": 500_000}, {}, None),
    ({"price": 500_000}, {"max_price": 200_000}, "price 0.5 > 0.2"),
    ({"price": 1}, {"max_price": 0}, "price 1e-06 > 0"),
]


@pytest.mark.parametrize(("machine", "needs", "reason"), REASONS)
def test_a_machine_and_its_record_are_judged_alike(
    machine: dict[str, Any], needs: dict[str, Any], reason: str | None
) -> None:
    assert lacks(profile_of("ann", **machine), Needs(**needs), ANN) == reason
    assert lacks(capability("ann", **machine).record, Needs(**needs), ANN) == reason
