"""Choosing a runtime by trying it: each candidate runs a trivial task before it is trusted with anything.

What is installed says little. User namespaces may be switched off, an engine may answer and be unable to start
anything, a kernel may have Landlock and not enable it.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import trio

from meshnode.images import ImageNotBuilt, build_tool_image, load_image
from meshnode.runtimes.base import ImagePolicy, RunRefused, RunRequest, Runtime, RuntimeFault, RuntimeUnavailable
from meshnode.runtimes.bubblewrap import Bubblewrap
from meshnode.runtimes.confinement import Confinement
from meshnode.runtimes.interpreter import node_interpreter
from meshnode.runtimes.landlock import Landlock
from meshnode.runtimes.output import remove_tree
from meshnode.runtimes.sandbox import Sandbox

_PROBE_WITHIN_S = 30.0
_PROBE_IMAGE = "meshnode-probe:latest"
Kind = Literal["auto", "sandbox", "docker"]


async def select_runtime(
    kind: Kind,
    *,
    home: Path,
    node_id: str,
    boot_id: str,
    image_policy: ImagePolicy = lambda image: None,
) -> Runtime:
    """The best runtime that works here; `auto` takes the engine before the sandbox.

    `home` is a folder of this node for running tasks, and no other node's. Raises RuntimeUnavailable, with the reason
    for each candidate, when none works: a stranger's task is never run with less.
    """
    interpreter = node_interpreter()

    def sandbox(make: Callable[[], Confinement]) -> Callable[[], Runtime]:
        return lambda: Sandbox(make(), interpreter, home=home / "sandbox", node_id=node_id, boot_id=boot_id)

    sandboxes: list[tuple[str, Callable[[], Runtime]]] = [
        ("bubblewrap", sandbox(lambda: Bubblewrap(interpreter))),
        ("Landlock", sandbox(lambda: Landlock(interpreter, private_mounts=False))),
    ]
    if os.geteuid() == 0:
        mounts = sandbox(lambda: Landlock(interpreter, private_mounts=True))
        sandboxes.insert(1, ("Landlock with private mounts", mounts))

    def engine() -> Runtime:
        from meshnode.runtimes.docker import Docker  # here, not above: a sandboxed node starts without the package

        return Docker(node_id=node_id, boot_id=boot_id, image_policy=image_policy)

    candidates = {"auto": [("docker", engine), *sandboxes], "sandbox": sandboxes, "docker": [("docker", engine)]}[kind]

    await trio.to_thread.run_sync(lambda: home.mkdir(parents=True, exist_ok=True))
    reasons = []
    for title, make in candidates:
        try:
            runtime = await trio.to_thread.run_sync(make)
            await _probe(runtime, home)
        except (LookupError, RunRefused, RuntimeFault, ImageNotBuilt) as error:
            reasons.append(f"{title}: {error}")
        else:
            return runtime
    raise RuntimeUnavailable(f"no runtime for strangers' tasks works here ({'; '.join(reasons)})")


async def _probe(runtime: Runtime, home: Path) -> None:
    """Run a task that writes one file. Raises RuntimeFault when that fails."""
    folder = await trio.to_thread.run_sync(_probe_folder, home)
    try:
        image = None
        command: tuple[str, ...] = ("python3", "-c", "import os; open(os.environ['MESH_OUTPUT'] + '/written', 'w')")
        if runtime.name == "docker":
            image = await trio.to_thread.run_sync(_load_probe_image, folder / "image.tar")
            command = ("touch", "/mesh/output/written")
        request = RunRequest(
            run_id=folder.name,
            command=command,
            model_dir=folder / "model",
            input_dir=folder / "input",
            output_dir=folder / "output",
            image=image,
            timeout_s=_PROBE_WITHIN_S,
        )
        ended = await runtime.run(request)
        if ended.cause != "exited" or ended.exit_code != 0 or not (folder / "output" / "written").exists():
            last = ended.stderr_tail.strip().splitlines()[-1:] or [ended.cause]
            raise RuntimeFault(f"a trivial task fails: {last[0]}")
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(remove_tree, folder)


def _probe_folder(home: Path) -> Path:
    folder = Path(tempfile.mkdtemp(dir=home, prefix="probe-"))
    folder.chmod(0o755)
    for name in ("model", "input", "output"):
        (folder / name).mkdir(mode=0o755)
    return folder


def _load_probe_image(archive: Path) -> str:
    touch = shutil.which("touch")
    if touch is None:
        raise ImageNotBuilt("touch is not installed, so there is nothing to try the engine with")
    build_tool_image(_PROBE_IMAGE, tools=[touch], out=archive)
    return load_image(archive)
