"""What a runtime is: it runs one task of a stranger, and nothing of the task is left when `run` returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Isolation = Literal["container", "namespace", "landlock"]
ImagePolicy = Callable[[str], str | None]
"""The reason why an image may not run here, or None when it may."""
Cause = Literal["exited", "timeout", "out-of-memory", "output-too-large"]

STDOUT_BYTES_MAX = 8 << 20
STDERR_TAIL_BYTES = 8 << 10
OUTPUT_FILES_MAX = 10_000
TMP_BYTES_MAX = 256 << 20
SHM_BYTES_MAX = 64 << 20


class RuntimeUnavailable(Exception):
    """This machine cannot run strangers' tasks in the way that was asked for. The message says why, in one sentence."""


class RunRefused(Exception):
    """The request can never run here: the image is denied by policy, or is missing, or is not for this runtime."""


class RuntimeFault(Exception):
    """The runtime itself failed (engine gone, pull failed, sandbox not set up): not the task's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One try of one task.

    `model_dir` and `input_dir` hold files that anyone may read (0644 or 0444, folders 0755; the folders above them
    may be private): the task runs under a user of its own. `output_dir` is empty and belongs to the node.
    """

    run_id: str
    """Unique per try; letters, digits, `.`, `_` and `-`, at most 100 of them."""
    command: tuple[str, ...]
    """In the sandbox a first word `python3` or `python` is the node's own Python."""
    model_dir: Path
    input_dir: Path
    output_dir: Path
    env: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None
    """`name@sha256:…` or a local image id `sha256:…`; for the container runtime only."""
    cpu: float = 1.0
    """Processor cores."""
    memory_bytes: int = 512 << 20
    pids: int = 64
    output_bytes_max: int = 256 << 20
    timeout_s: float = 120.0
    """Of the run itself; pulling an image is not in it."""
    network: bool = False

    def __post_init__(self) -> None:
        plain = self.run_id.replace("-", "").replace("_", "").replace(".", "")
        if not (plain.isascii() and plain.isalnum()) or self.run_id.startswith(".") or len(self.run_id) > 100:
            raise ValueError(f"run_id {self.run_id!r} is not a plain file name")
        if not self.command or not all(self.command[:1]):
            raise ValueError("command is empty")
        if any("\0" in word for word in (*self.command, *self.env, *self.env.values())):
            raise ValueError("command or environment holds a NUL byte")
        if self.cpu <= 0 or self.timeout_s <= 0:
            raise ValueError("cpu and timeout_s must be above zero")
        if self.memory_bytes < 16 << 20 or self.pids < 1 or self.output_bytes_max < 0:
            raise ValueError("memory_bytes must be at least 16 MiB, pids at least 1, output_bytes_max not negative")

    @property
    def tmp_bytes(self) -> int:
        """Size of the private /tmp. It lives in memory, so it never exceeds the task's memory."""
        return min(TMP_BYTES_MAX, self.memory_bytes)

    @property
    def shm_bytes(self) -> int:
        """Size of the private /dev/shm, which lives in memory too."""
        return min(SHM_BYTES_MAX, self.memory_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a try ended. Only `cause == "exited"` with `exit_code == 0` is a success."""

    cause: Cause
    exit_code: int | None
    """As a shell shows it (128 + n after signal n); None when the runtime ended the task."""
    stdout: bytes
    stdout_truncated: bool
    stderr_tail: str
    started_at: int
    """Wall clock, Unix milliseconds."""
    run_ms: int
    pull_ms: int = 0
    image_digest: str | None = None


class Runtime(Protocol):
    """Runs tasks one by one or many at once."""

    @property
    def name(self) -> Literal["sandbox", "docker"]: ...

    @property
    def isolation(self) -> Isolation: ...

    async def run(self, request: RunRequest) -> Ended:
        """Run to the end. Raises RunRefused or RuntimeFault; a task that fails is an Ended.

        Cancellation kills all the task started. Either way the only trace left is `output_dir`, whose files then belong
        to the node; read it with `collect_output`.
        """
        ...

    async def sweep(self) -> int:
        """Remove what earlier boots of this node left on the machine; how many things that was."""
        ...
