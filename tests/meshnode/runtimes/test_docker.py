"""What only containers have: images, pulls, labels."""

from collections.abc import Callable

import docker
import pytest
import trio

from meshnode.runtimes import docker as runtimes_docker
from meshnode.runtimes.base import RunRefused, RuntimeFault
from meshnode.runtimes.docker import LABEL_BOOT, LABEL_NODE, LABEL_RUN, Docker, container_spec

pytestmark = pytest.mark.docker
UNKNOWN = "sha256:" + "0" * 64


@pytest.fixture
def place(make_place: Callable):
    return make_place("docker")


def test_the_digest_is_reported_and_no_pull_is_counted_for_an_image_at_hand(place) -> None:
    ended = trio.run(place.runtime.run, place.request("print('hi')"))
    assert (ended.stdout, ended.image_digest, ended.pull_ms) == (b"hi\n", place.image, 0)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (None, "the model names none"),
        ("python:3.11", "names no digest"),
        (UNKNOWN, "is not on this machine"),
    ],
)
def test_images_that_cannot_be_told_apart_are_refused(place, image: str | None, reason: str) -> None:
    with pytest.raises(RunRefused, match=reason):
        trio.run(place.runtime.run, place.request("", image=image))


def test_a_pull_that_fails_says_so(place) -> None:
    image = f"localhost:1/nothing@{UNKNOWN}"
    with pytest.raises((RunRefused, RuntimeFault), match=r"localhost:1|connect"):
        trio.run(place.runtime.run, place.request("", image=image))


def test_the_policy_has_the_last_word(place) -> None:
    runtime = Docker(node_id=place.node_id, boot_id="boot", image_policy=lambda image: "publisher unknown")
    with pytest.raises(RunRefused, match="denied by policy: publisher unknown"):
        trio.run(runtime.run, place.request("print()"))


def test_an_entry_point_in_the_image_does_not_run(place) -> None:
    """The command is exactly what runs: here the image's own command would be python3."""
    ended = trio.run(
        place.runtime.run, place.request("", command=("python3", "-c", "import sys; print(len(sys.argv))"))
    )
    assert ended.stdout == b"1\n"


def test_a_task_may_be_silent_for_longer_than_a_call_may_take(place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes_docker, "_CALL_TIMEOUT_S", 1)
    runtime = Docker(node_id=place.node_id, boot_id="boot")
    ended = trio.run(runtime.run, place.request("import time; time.sleep(2); print('late')"))
    assert (ended.exit_code, ended.stdout) == (0, b"late\n")


def test_an_engine_that_fails_in_the_middle_is_no_fault_of_the_task(place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise docker.errors.APIError("the engine is gone")

    monkeypatch.setattr(place.runtime, "_follow", fail)
    with pytest.raises(RuntimeFault, match="docker: the engine is gone"):
        trio.run(place.runtime.run, place.request("import time; time.sleep(1000)"))


def test_the_profile_is_the_strict_one(place) -> None:
    """Several of these hide behind each other, so that no attack would show that one of them is missing."""
    spec = container_spec(place.request("", memory_bytes=64 << 20, pids=8), identity="7:7", labels={})
    host = spec["HostConfig"]
    assert (spec["User"], spec["NetworkDisabled"], host["NetworkMode"]) == ("7:7", True, "none")
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["IpcMode"]) == (True, ["ALL"], "private")
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (64 << 20, 64 << 20, 9)
    assert [mount["ReadOnly"] for mount in host["Mounts"]] == [True, True, False]


def test_sweep_removes_containers_of_earlier_boots_and_no_others(place) -> None:
    engine = docker.from_env()

    def leave(node_id: str, boot_id: str) -> str:
        labels = {LABEL_NODE: node_id, LABEL_BOOT: boot_id, LABEL_RUN: "r"}
        return engine.containers.create(place.image, labels=labels).id

    orphan = leave(place.node_id, "earlier")
    current = leave(place.node_id, "boot")
    foreign = leave("another-" + place.node_id, "earlier")
    try:
        assert trio.run(place.runtime.sweep) == 1
        left = {container.id for container in engine.containers.list(all=True)}
        assert left >= {current, foreign}
        assert orphan not in left
    finally:
        for identity in (current, foreign):
            engine.containers.get(identity).remove(force=True)
