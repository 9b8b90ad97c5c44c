"""Containers of a Docker engine, under a profile that assumes the image and its command are hostile.

The engine is driven with the `docker` package in worker threads. Everything this node makes carries its labels; nothing
else on the engine is ever touched.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, TypeVar

import docker
import docker.errors
import requests
import trio

from meshnode.runtimes.base import (
    STDERR_TAIL_BYTES,
    STDOUT_BYTES_MAX,
    Cause,
    Ended,
    ImagePolicy,
    RunRefused,
    RunRequest,
    RuntimeFault,
)
from meshnode.runtimes.confinement import fresh_uid, require_open_to_others
from meshnode.runtimes.output import exceeds, reclaim
from meshnode.runtimes.streams import Head, Tail

LABEL_NODE, LABEL_BOOT, LABEL_RUN = "mesh.node", "mesh.boot", "mesh.run"
MODEL, INPUT, OUTPUT = "/mesh/model", "/mesh/input", "/mesh/output"

_CALL_TIMEOUT_S = 60
_END_WITHIN_S = 15.0
_LOOK_AT_OUTPUT_EVERY_S = 0.2
_THREADS = 128
# What the engine notes for a command that is no program, or is not in the image.
_COMMAND_UNUSABLE = (126, 127)

T = TypeVar("T")


def engine_version(timeout_s: float = _CALL_TIMEOUT_S) -> str | None:
    """The version of the engine at the usual place (`DOCKER_HOST`, else the local socket); None if none answers."""
    try:
        client = docker.from_env(timeout=timeout_s)
        try:
            return str(client.version().get("Version", "of unknown version"))
        finally:
            client.close()
    except (docker.errors.DockerException, OSError):
        return None


class Docker:
    """Runs each task in a container of its own, made for it and removed after it.

    Raises RuntimeFault when no engine answers at the usual place (`DOCKER_HOST`, else the local socket).
    """

    name: Literal["docker"] = "docker"
    isolation: Literal["container"] = "container"

    def __init__(self, *, node_id: str, boot_id: str, image_policy: ImagePolicy = lambda image: None) -> None:
        # The engine is asked for its API version: newer engines drop old versions, older ones lack new ones.
        try:
            self._api = docker.APIClient(version="auto", timeout=_CALL_TIMEOUT_S, **docker.utils.kwargs_from_env())
        except docker.errors.DockerException as error:
            raise RuntimeFault(f"no engine answers: {_sentence(error)}") from None
        self._node_id = node_id
        self._boot_id = boot_id
        self._image_policy = image_policy
        self._threads = trio.CapacityLimiter(_THREADS)

    async def run(self, request: RunRequest) -> Ended:
        digest, pull_ms = await self._have_image(request)
        user = fresh_uid() if os.geteuid() == 0 else None
        if user is not None:
            require_open_to_others(request)
            os.chown(request.output_dir, user, user)
        try:
            identity = f"{os.getuid()}:{os.getgid()}" if user is None else f"{user}:{user}"
            container = await self._call(self._create, request, identity)
            try:
                return await self._run_created(container, request, digest, pull_ms)
            finally:
                with trio.CancelScope(shield=True):
                    await self._call(self._remove, container)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_take_back, request)

    async def sweep(self) -> int:
        return await self._call(self._sweep)

    async def _call(self, function: Callable[..., T], *arguments: Any, abandon: bool = False) -> T:
        try:
            return await trio.to_thread.run_sync(
                partial(function, *arguments),
                abandon_on_cancel=abandon,  # type: ignore[call-arg]  # trio-typing's stubs are older than trio
                limiter=self._threads,
            )
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise RuntimeFault(f"docker: {_sentence(error)}") from error

    async def _have_image(self, request: RunRequest) -> tuple[str, int]:
        """The image's digest, and how long the pull took in ms; 0 when the image was here."""
        image = request.image
        if image is None:
            raise RunRefused("a container needs an image, and the model names none")
        name, _, digest = image.rpartition("@")
        if not digest.startswith("sha256:"):
            raise RunRefused(f"image {image} names no digest, only name@sha256:… or a local sha256:… is run")
        if reason := self._image_policy(image):
            raise RunRefused(f"image {image} denied by policy: {reason}")
        if await self._call(self._has_image, image):
            return digest, 0
        if not name:
            raise RunRefused(f"image {image} is not on this machine")
        begin = trio.current_time()
        given_up = threading.Event()
        try:
            await self._call(self._pull, name, digest, given_up, abandon=True)
        finally:
            given_up.set()
        return digest, max(1, round((trio.current_time() - begin) * 1000))

    async def _run_created(self, container: str, request: RunRequest, digest: str, pull_ms: int) -> Ended:
        stdout, stderr = Head(STDOUT_BYTES_MAX), Tail(STDERR_TAIL_BYTES)
        stream = await self._call(self._attach, container)  # before the start, or early output is lost
        started_at, begin = time.time_ns() // 1_000_000, trio.current_time()
        if reason := await self._call(self._start, container):
            stderr.feed(reason.encode())
            return Ended(
                cause="exited",
                exit_code=_COMMAND_UNUSABLE[-1],
                stdout=b"",
                stdout_truncated=False,
                stderr_tail=stderr.text(),
                started_at=started_at,
                run_ms=0,
                pull_ms=pull_ms,
                image_digest=digest,
            )
        verdict: Cause = "exited"
        ended = trio.Event()

        async def follow() -> None:
            await self._call(self._follow, container, stream, stdout, stderr, abandon=True)
            ended.set()

        faults: list[Exception] = []
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow)
                with trio.move_on_after(request.timeout_s) as clock:
                    verdict = await _until_end(ended, request)
                if clock.cancelled_caught:
                    verdict = "timeout"
                if verdict != "exited":
                    await self._call(self._kill, container)
                    nursery.cancel_scope.deadline = trio.current_time() + _END_WITHIN_S
        except* RuntimeFault as group:
            faults.extend(group.exceptions)
        if faults:  # raised here, not above, where it would be wrapped in a group again
            raise faults[0]
        run_ms = round((trio.current_time() - begin) * 1000)
        state = (await self._call(self._api.inspect_container, container))["State"]
        exit_code = int(state["ExitCode"])
        if verdict == "exited":
            if await trio.to_thread.run_sync(exceeds, request.output_dir, request.output_bytes_max):
                verdict = "output-too-large"
            elif exit_code and state["OOMKilled"]:
                verdict = "out-of-memory"
        return Ended(
            cause=verdict,
            exit_code=exit_code if verdict in ("exited", "out-of-memory") else None,
            stdout=bytes(stdout),
            stdout_truncated=stdout.truncated,
            stderr_tail=stderr.text(),
            started_at=started_at,
            run_ms=run_ms,
            pull_ms=pull_ms,
            image_digest=digest,
        )

    # What follows runs in worker threads.

    def _has_image(self, image: str) -> bool:
        try:
            self._api.inspect_image(image)
        except docker.errors.ImageNotFound:
            return False
        return True

    def _pull(self, name: str, digest: str, given_up: threading.Event) -> None:
        try:
            for line in self._api.pull(name, tag=digest, stream=True, decode=True):
                if "error" in line:  # an answer of 200 may still carry an error among its lines
                    raise docker.errors.DockerException(line["error"])
                if given_up.is_set():
                    return
        except docker.errors.NotFound as error:
            raise RunRefused(f"image {name}@{digest} cannot be pulled: {_sentence(error)}") from None

    def _create(self, request: RunRequest, identity: str) -> str:
        labels = {LABEL_NODE: self._node_id, LABEL_BOOT: self._boot_id, LABEL_RUN: request.run_id}
        configuration = container_spec(request, identity=identity, labels=labels)
        created = self._api.create_container_from_config(configuration, name=f"mesh-{self._boot_id}-{request.run_id}")
        return str(created["Id"])

    def _attach(self, container: str) -> Iterator[tuple[bytes | None, bytes | None]]:
        stream: Iterator[tuple[bytes | None, bytes | None]] = self._api.attach(
            container, stdout=True, stderr=True, stream=True, demux=True
        )
        return stream

    def _start(self, container: str) -> str | None:
        """Start it; the reason when the command cannot be run, which is the task's fault."""
        try:
            self._api.start(container)
        except docker.errors.APIError as error:
            if self._api.inspect_container(container)["State"]["ExitCode"] not in _COMMAND_UNUSABLE:
                raise
            return _sentence(error)
        return None

    def _follow(
        self, container: str, stream: Iterator[tuple[bytes | None, bytes | None]], stdout: Head, stderr: Tail
    ) -> None:
        for out, err in stream:
            if out:
                stdout.feed(out)
            if err:
                stderr.feed(err)
        self._api.wait(container, timeout=None)  # the streams may end before the process does

    def _kill(self, container: str) -> None:
        try:
            self._api.kill(container)
        except docker.errors.APIError as error:
            if error.status_code != 409:  # it ended by itself a moment ago
                raise

    def _remove(self, container: str) -> None:
        try:
            self._api.remove_container(container, force=True, v=True)
        except docker.errors.APIError as error:
            if error.status_code not in (404, 409):  # gone, or going already
                raise

    def _sweep(self) -> int:
        removed = 0
        for container in self._api.containers(all=True, filters={"label": f"{LABEL_NODE}={self._node_id}"}):
            if container["Labels"].get(LABEL_BOOT) != self._boot_id:
                self._remove(container["Id"])
                removed += 1
        return removed


def container_spec(request: RunRequest, *, identity: str, labels: dict[str, str]) -> dict[str, Any]:
    """The body of the engine's `create` call. It names no seccomp profile, so the engine's default applies."""
    threads = str(max(1, math.ceil(request.cpu)))
    env = {
        "HOME": "/tmp",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "VIPS_CONCURRENCY": threads,
        **request.env,
        "MESH_MODEL": MODEL,
        "MESH_INPUT": INPUT,
        "MESH_OUTPUT": OUTPUT,
    }
    folders = ((request.model_dir, MODEL, True), (request.input_dir, INPUT, True), (request.output_dir, OUTPUT, False))
    fsize = max(request.output_bytes_max + 4096, request.tmp_bytes)
    host = {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "NetworkMode": "bridge" if request.network else "none",
        "IpcMode": "private",
        "PidsLimit": request.pids + 1,  # the engine's init process is counted too
        "Init": True,
        "Memory": request.memory_bytes,
        "MemorySwap": request.memory_bytes,
        "NanoCpus": round(request.cpu * 1e9),
        "OomScoreAdj": 500,
        "ShmSize": request.shm_bytes,
        "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,size={request.tmp_bytes},mode=1777"},
        "Mounts": [
            {"Type": "bind", "Source": str(source.resolve()), "Target": target, "ReadOnly": read_only}
            for source, target, read_only in folders
        ],
        "Ulimits": [
            {"Name": name, "Soft": limit, "Hard": limit}
            for name, limit in (("nofile", 1024), ("core", 0), ("fsize", fsize))
        ],
        "LogConfig": {"Type": "none"},
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,  # it would race with reading how the task ended
    }
    return {
        "Image": request.image,
        # As the entry point, not as Cmd: an entry point in the image must not run first with our words as arguments.
        "Entrypoint": list(request.command),
        "User": identity,
        "WorkingDir": MODEL,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Labels": labels,
        "NetworkDisabled": not request.network,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": host,
    }


async def _until_end(ended: trio.Event, request: RunRequest) -> Cause:
    while True:
        with trio.move_on_after(_LOOK_AT_OUTPUT_EVERY_S):
            await ended.wait()
            return "exited"
        if await trio.to_thread.run_sync(exceeds, request.output_dir, request.output_bytes_max):
            return "output-too-large"


def _take_back(request: RunRequest) -> None:
    if os.geteuid() == 0:
        os.chown(request.output_dir, os.geteuid(), os.getegid())
    reclaim(request.output_dir)


def _sentence(error: Exception) -> str:
    explanation = getattr(error, "explanation", None) or str(error)
    return str(explanation).strip().replace("\n", " ")
