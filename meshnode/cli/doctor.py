"""``infra doctor``: what works on this machine, and what the node says of itself, if one answers."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from meshnode.cli.common import a_client, asks_a_node, plain, print_json, progress_bar, shows_progress
from meshnode.cli.group import DONE, JOB_FAILED

Check = dict[str, Any]

_PORT = 4001
_DOCKER_TIMEOUT_S = 5


@click.command()
@asks_a_node
def doctor(api: str | None, as_json: bool) -> int:
    """Docker, sandbox, GPU, ports; clock and visibility as the node sees them. Exit 1 if something has to be done."""
    with progress_bar("examining this machine", 0) if shows_progress(as_json) else nullcontext():
        checks = [_docker(), _sandbox(), _gpu(), *_node(api)]
    good = all(check["ok"] for check in checks)
    if as_json:
        print_json({"ok": good, "checks": checks})
    else:
        for check in checks:
            click.echo(f"{'ok' if check['ok'] else 'NO':<3} {plain(check['name']):<10} {plain(check['text'])}")
    return DONE if good else JOB_FAILED


def _docker() -> Check:
    """Optional: models without an image run in the sandbox."""
    from meshnode.runtimes.docker import engine_version

    version = engine_version(_DOCKER_TIMEOUT_S)
    return _check(
        "docker", True, f"engine {version}" if version else "no engine answers; models with an image do not run here"
    )


def _sandbox() -> Check:
    """Runs a trivial task in it, as a node does when it starts."""
    import trio

    from meshnode.runtimes.base import RuntimeUnavailable
    from meshnode.runtimes.selection import select_runtime

    name = f"doctor{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="meshnode-doctor-") as folder:
        Path(folder).chmod(0o755)  # the task runs as another user
        try:
            runtime = trio.run(lambda: select_runtime("sandbox", home=Path(folder, "runs"), node_id=name, boot_id=name))
        except RuntimeUnavailable as error:
            return _check("sandbox", False, str(error))
    return _check("sandbox", True, f"{runtime.name}, isolation {runtime.isolation}")


def _gpu() -> Check:
    """Optional. Asks the driver's own tool, which is there wherever the driver is."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return _check("gpu", True, "none (no nvidia-smi)")
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return _check("gpu", False, f"nvidia-smi fails: {error}")
    return _check("gpu", True, listed.stdout.strip().replace("\n", "; "))


def _node(api: str | None) -> list[Check]:
    """What the node says; without one, whether its port is free for it."""
    from meshnode.client.errors import NoNode

    try:
        with a_client(api) as client:
            checks: list[Check] = client.doctor()["checks"]
            return checks
    except NoNode as error:
        return [_check("node", True, f"{error}"), _port()]


def _port() -> Check:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", _PORT))
        except OSError as error:
            return _check("ports", False, f"{_PORT}/tcp, where a node listens: {error.strerror}")
    return _check("ports", True, f"{_PORT}/tcp is free for a node")


def _check(name: str, ok: bool, text: str) -> Check:
    return {"name": name, "ok": ok, "text": text}
