"""Real node processes on loopback. Everything waits for conditions; nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meshnode.client.results import Job
from meshnode.devmesh import DevMesh, DevNode, wait_for
from tests.e2e.testbed.namespaces import BedUnavailable, names_with
from tests.e2e.testbed.network import Network

pytestmark = pytest.mark.e2e

SQUARES = """
import json, os, pathlib, time
task = json.loads(pathlib.Path(os.environ["MESH_INPUT"], "input.json").read_text())
time.sleep(task.get("seconds", 0))
out = pathlib.Path(os.environ["MESH_OUTPUT"], "output.json")
out.write_text(json.dumps([number * number for number in task["items"]]))
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)


FIGURES_FILE = "INFRA_TEST_FIGURES"
"""Variable with a file to which all figures are appended, a JSON object a line."""
_FIGURES = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Tells what a test has measured: shown at the end of the run, and written to the file in ``FIGURES_FILE``."""

    def tell(what: str, **measured: Any) -> None:
        told = {"what": what, **measured}
        request.config.stash.setdefault(_FIGURES, []).append(told)
        if path := os.environ.get(FIGURES_FILE):
            with open(path, "a") as file:
                file.write(json.dumps(told) + "\n")

    return tell


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for told in config.stash.get(_FIGURES, []):
        terminalreporter.write_line(
            " ".join(str(value) if key == "what" else f"{key}={value}" for key, value in told.items())
        )


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)


def infra(*words: object, timeout_s: float = 120, **environment: str) -> Ended:
    """Run the command line as a user would."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MESHNODE_", "INFRA_"))}
    done = subprocess.run(
        [sys.executable, "-m", "meshnode", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**inherited, **environment},
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class Workshop:
    """A folder with a model beside which jobs are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def model(self, program: str = SQUARES, **settings: Any) -> None:
        (self.folder / "model").mkdir(exist_ok=True)
        (self.folder / "model" / "main.py").write_text(program)
        model = {
            "model_id": "squares-v1",
            "command": ["python3", "main.py"],
            "resources": {"memory": "128MiB"},
            "multi_node": {"enabled": True, "split_mode": "batch", "merge_strategy": "concat-json"},
            **settings,
        }
        (self.folder / "model" / "model.yaml").write_text(json.dumps(model))

    def job(self, shards: int = 4, seconds: float = 0.0, **more: Any) -> Path:
        path = self.folder / "job.json"
        job_input = {"items": list(range(shards)), "seconds": seconds}
        path.write_text(json.dumps({"model": "./model", "input": job_input, "shard_count": shards, **more}))
        return path

    def submit(self, node: DevNode, path: Path) -> str:
        """Hand in the job; its full id."""
        with node.client() as client:
            return client.submit(path).full_id


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    made.model()
    return made


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevMesh]:
    """Four nodes that tests share: leave them as they were found."""
    folder = tmp_path_factory.mktemp("mesh")
    with DevMesh.run(folder, 4, runtime="sandbox") as running:
        yield running
        assert all(node.running for node in running.nodes[:4]), "a test has ended a node of the shared mesh"


@pytest.fixture
def own_mesh(tmp_path: Path) -> Iterator[Callable[..., DevMesh]]:
    """Makes meshes of this test's own."""
    with ExitStack() as stack:
        yield lambda peers, **settings: stack.enter_context(
            DevMesh.run(tmp_path / "mesh", peers, **{"runtime": "sandbox", **settings})
        )


@pytest.fixture
def network() -> Callable[..., AbstractContextManager[Network]]:
    """Makes networks of hosts. Where there can be none the test is skipped; CI has to have them."""

    @contextmanager
    def made(hosts: int, **settings: Any) -> Iterator[Network]:
        with ExitStack() as stack:
            try:
                built = stack.enter_context(Network.make(hosts, **settings))
            except BedUnavailable as error:
                pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))
            yield built
        assert not names_with(f"bed{built.number}-"), "hosts were left behind"

    return made


def squares(count: int) -> list[int]:
    return [number * number for number in range(count)]


def ended(node: DevNode, job: str, within_s: float = 90.0) -> Job:
    """The job as ``node`` sees it once it has ended."""
    seen: list[Job] = []

    def is_over() -> bool:
        with node.client() as client:
            seen.append(client.job(job))
        return seen[-1].ended

    assert wait_for(is_over, within_s), seen[-1]
    return seen[-1]


def output_of(node: DevNode, job: str) -> bytes:
    with node.client() as client:
        return b"".join(client.output(job)[1])


def details_of(node: DevNode, job: str) -> dict[str, Any]:
    with node.client() as client:
        return client.details(job)
