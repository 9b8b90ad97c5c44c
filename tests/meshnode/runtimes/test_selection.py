"""A runtime is chosen by what works, and a refusal names every reason."""

from pathlib import Path

import pytest
import trio

from meshnode.runtimes import bubblewrap, landlock, select_runtime
from meshnode.runtimes.base import Runtime, RuntimeUnavailable


def select(kind: str, home: Path) -> Runtime:
    async def main() -> Runtime:
        return await select_runtime(kind, home=home, node_id="test", boot_id="boot")

    runtime = trio.run(main)
    assert list(home.glob("probe-*")) == []
    return runtime


def missing(program: str) -> str:
    raise LookupError(f"{program} is not installed")


def test_bubblewrap_comes_first(tmp_path: Path) -> None:
    assert select("sandbox", tmp_path).isolation == "namespace"


def test_without_bubblewrap_landlock_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "_installed", missing)
    assert select("sandbox", tmp_path).isolation == "landlock"


@pytest.mark.docker
def test_an_engine_is_tried_with_a_container(engine: None, tmp_path: Path) -> None:
    assert select("docker", tmp_path).isolation == "container"
    assert select("auto", tmp_path).isolation == "container"


def test_auto_without_an_engine_is_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody")
    assert select("auto", tmp_path).name == "sandbox"


def test_nothing_is_refused_with_every_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody")
    monkeypatch.setattr(bubblewrap, "_installed", missing)
    monkeypatch.setattr(landlock, "landlock_abi", lambda: 0)
    with pytest.raises(RuntimeUnavailable) as refusal:
        select("auto", tmp_path)
    message = str(refusal.value)
    for reason in ("docker: no engine answers", "bubblewrap: bwrap is not installed", "the kernel has no Landlock"):
        assert reason in message
    assert "\n" not in message


def test_a_sandbox_that_is_installed_and_does_not_work_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bubblewrap, "_installed", lambda program: "/bin/false")
    assert select("sandbox", tmp_path).isolation == "landlock"
