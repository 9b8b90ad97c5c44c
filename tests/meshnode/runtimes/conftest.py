"""Every runtime that this machine has, a place to run in, and a check that nothing stays behind."""

import os
import platform
import socketserver
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import trio

from meshnode.images import build_python_image, load_image
from meshnode.runtimes import seccomp
from meshnode.runtimes.base import RunRequest, Runtime
from meshnode.runtimes.bubblewrap import Bubblewrap
from meshnode.runtimes.cgroups import CgroupFactory, CgroupsUnavailable
from meshnode.runtimes.docker import LABEL_NODE, Docker
from meshnode.runtimes.interpreter import node_interpreter
from meshnode.runtimes.landlock import Landlock
from meshnode.runtimes.output import remove_tree
from meshnode.runtimes.sandbox import Sandbox

SANDBOXES = ("bubblewrap", "landlock")


ALL = (*SANDBOXES, pytest.param("docker", marks=pytest.mark.docker))


@dataclass
class Place:
    """A runtime and folders for one task after another."""

    runtime: Runtime
    folder: Path
    home: Path
    image: str | None
    node_id: str
    tasks: int = 0

    def request(self, program: str, *, files: dict[str, str] | None = None, **settings: Any) -> RunRequest:
        """A task that runs `program` with Python, in new folders; `files` stand beside it in the model."""
        self.tasks += 1
        folder = self.folder / str(self.tasks)
        for name in ("model", "input", "output"):
            (folder / name).mkdir(parents=True)
        (folder / "input" / "input.json").write_text('{"answer": 42}')
        for name, text in {"program.py": program, **(files or {})}.items():
            (folder / "model" / name).write_text(text)
        values: dict[str, Any] = {
            "run_id": f"run-{self.tasks}",
            "command": ("python3", "program.py"),
            "model_dir": folder / "model",
            "input_dir": folder / "input",
            "output_dir": folder / "output",
            "image": self.image,
            "timeout_s": 60.0,
            **settings,
            "env": {"MESH_TEST": str(self.folder), **settings.get("env", {})},  # by which its processes are found
        }
        return RunRequest(**values)

    def leftovers(self) -> list[str]:
        """Whatever of this place's tasks is still on the machine."""
        found = [str(path) for path in self.home.glob("*/*")]
        if self.runtime.name == "docker":
            containers = docker.from_env().containers.list(all=True, filters={"label": f"{LABEL_NODE}={self.node_id}"})
            found += [container.id for container in containers]
        else:
            with suppress(CgroupsUnavailable):  # a machine without them has none left over
                found += [group.name for group in CgroupFactory().named(f"mesh-{self.node_id}-")]
        return found + [f"process {process}" for process in processes_of(str(self.folder))]


@pytest.fixture
def control_groups() -> CgroupFactory:
    """For what only they can do. Where none can be made the test is skipped; CI has to have them."""
    try:
        return CgroupFactory()
    except CgroupsUnavailable as error:
        pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))


async def until(condition: Callable[[], object]) -> None:
    """Wait for something outside this process; the time limit only ends a test that would hang."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.02)


def processes_of(word: str) -> list[int]:
    """Living processes with `word` in their environment or command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                text = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if word.encode() in text:
                found.append(int(folder.name))
    return found


@pytest.fixture(scope="session")
def python_image(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The id of an image with nothing but this Python."""
    archive = tmp_path_factory.mktemp("image") / "python.tar"
    build_python_image("meshnode-test:python", packages=[], out=archive)
    identity = load_image(archive)
    yield identity
    docker.from_env().images.remove(identity, force=True)


@pytest.fixture
def make_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """Places by runtime name; each is checked for leftovers when the test is over."""
    places = []

    def make(name: str, *, boot_id: str = "boot", node_id: str | None = None) -> Place:
        node_id = node_id or uuid.uuid4().hex[:12]
        home = tmp_path / f"home-{len(places)}"
        image = request.getfixturevalue("python_image") if name == "docker" else None
        place = Place(
            make_runtime(name, home, node_id, boot_id), tmp_path / f"tasks-{len(places)}", home, image, node_id
        )
        places.append(place)
        return place

    yield make
    for place in places:
        assert place.leftovers() == []
        remove_tree(place.folder)  # pytest could not: some are deeper than Python's stack


def make_runtime(name: str, home: Path, node_id: str, boot_id: str) -> Runtime:
    if name == "docker":
        return Docker(node_id=node_id, boot_id=boot_id)
    interpreter = node_interpreter()
    if name == "bubblewrap":
        return Sandbox(Bubblewrap(interpreter), interpreter, home=home, node_id=node_id, boot_id=boot_id)
    confinement = Landlock(interpreter, private_mounts=os.geteuid() == 0)
    return Sandbox(confinement, interpreter, home=home, node_id=node_id, boot_id=boot_id)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Any]:
    return until


@pytest.fixture(params=ALL)
def place(request: pytest.FixtureRequest, make_place: Callable[..., Place]) -> Place:
    """Each runtime in turn."""
    return make_place(request.param)


@pytest.fixture(params=SANDBOXES)
def sandbox_place(request: pytest.FixtureRequest, make_place: Callable[..., Place]) -> Place:
    """Each of the runtimes that use the node's own Python."""
    return make_place(request.param)


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(self.request.recv(1))


class _EchoDatagram(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, answering = self.request
        answering.sendto(data, self.client_address)


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture(scope="session")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Things outside the sandbox that really answer, so that only the sandbox stands in the way."""
    folder = tmp_path_factory.mktemp("outside")
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o055)  # the path itself must not be what protects the files
    (folder / "private").write_text("secret")
    (folder / "private").chmod(0o600)
    (folder / "open").write_text("readable by all")
    (folder / "other").mkdir()
    (folder / "other").chmod(0o777)
    path, abstract = str(folder / "s"), f"mesh-test-{os.getpid()}"
    servers: list[socketserver.BaseServer] = [
        tcp := socketserver.ThreadingTCPServer(("0.0.0.0", 0), _Echo),
        udp := socketserver.ThreadingUDPServer(("0.0.0.0", 0), _EchoDatagram),
        _UnixServer(path, _Echo),
        _UnixServer("\0" + abstract, _Echo),
    ]
    os.chmod(path, 0o777)
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    column = list(seccomp.AUDIT_ARCH).index(platform.machine())
    yield {
        "node_pid": os.getpid(),
        "private_file": str(folder / "private"),
        "open_file": str(folder / "open"),
        "program_file": seccomp.__file__,
        "other_output": str(folder / "other"),
        "tcp_port": tcp.server_address[1],
        "udp_port": udp.server_address[1],
        "unix_socket": path,
        "abstract_socket": abstract,
        "syscalls": {name: numbers[column] for name, numbers in {**seccomp.REFUSED, "clone": seccomp.CLONE}.items()},
    }
    for server in servers:
        server.shutdown()
        server.server_close()
