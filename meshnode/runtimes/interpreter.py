"""The node's own Python, as far as a sandboxed task needs it: where it lies, and how it looks from inside.

A task sees the interpreter without its virtual environment's path: the base installation under one fixed folder, and a
virtual environment with the same packages under another, so that `python3` there is an ordinary start (`site` runs,
packages import) and nothing of the owner's folder names is shown.
"""

import os
import site
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Paths on the machine; read-only for tasks."""

    prefix: Path
    """The base installation (not the virtual environment): `bin`, `lib`."""
    program: str
    """The interpreter below `prefix`, such as `bin/python3.11`."""
    site_packages: tuple[Path, ...]
    """Folders with the packages that the node itself imports."""
    shared_library: bool
    """Whether `prefix/lib` holds the libpython that the program needs."""

    @property
    def executable(self) -> Path:
        return self.prefix / self.program

    def library_path(self, prefix: str) -> dict[str, str]:
        """The variable that lets the program find its libpython when the installation is seen at `prefix`."""
        return {"LD_LIBRARY_PATH": f"{prefix}/lib"} if self.shared_library else {}

    @property
    def version(self) -> str:
        return f"python{sys.version_info.major}.{sys.version_info.minor}"


def node_interpreter() -> Interpreter:
    """The interpreter that runs this very process."""
    prefix = Path(sys.base_prefix).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    paths = sysconfig.get_paths()
    folders = dict.fromkeys(Path(paths[key]).resolve() for key in ("purelib", "platlib"))
    if sys.prefix == sys.base_prefix:
        folders |= dict.fromkeys(Path(folder).resolve() for folder in site.getsitepackages())
    return Interpreter(
        prefix=prefix,
        program=f"bin/{version}",
        site_packages=tuple(folder for folder in folders if folder.is_dir()),
        shared_library=any((prefix / "lib").glob("libpython*.so*")) and prefix != Path("/usr"),
    )


def system_folders() -> list[Path]:
    """The folders of the operating system that hold shared libraries and common tools."""
    return [folder for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64") if (folder := Path("/", name)).exists()]


def environment(interpreter: Interpreter, *, bin_dir: str, prefix: str, home: str, cpu: float) -> dict[str, str]:
    """The variables every sandboxed task starts with. Paths are those the task sees."""
    threads = str(max(1, -int(-cpu // 1)))
    variables = {
        "PATH": os.pathsep.join(dict.fromkeys([bin_dir, f"{prefix}/bin", "/usr/local/bin", "/usr/bin", "/bin"])),
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
    variables |= dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VIPS_CONCURRENCY"), threads
    )
    return variables | interpreter.library_path(prefix)
