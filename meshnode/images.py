"""Container images built without a registry and without an engine: a Python and some packages, as a docker-archive.

An image is nothing but tar files and a JSON configuration. Written with fixed times, owners and order, the same
files give the same bytes, hence the same image id on every build: a job can name an image by its id before anybody
has loaded it.

The image holds this node's own interpreter with its standard library, the named packages with what they need, and every
shared library that any of these asks for.
"""

import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_STDLIB = f"usr/local/lib/{_VERSION}"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_SKIPPED = {"__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages"}
# What wheels take for granted, and the interpreter itself may not use: `ldd` of the interpreter does not show them.
_ASSUMED_LIBRARIES = (
    *("libstdc++.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"),
    *("libm.so.6", "libz.so.1", "libresolv.so.2", "libnss_dns.so.2", "libnss_files.so.2"),
)
_SKELETON = {"tmp": 0o1777, "mesh": 0o755, "proc": 0o755, "sys": 0o755, "dev": 0o755, "run": 0o755, "etc": 0o755}
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_PASSWD = b"root:x:0:0::/:/bin/sh\ntask:x:65534:65534::/tmp:/bin/sh\n"

# Compiles `source NUL path-in-image` lines from stdin, answering with length-prefixed bytecode files. Times stay out of
# them (unchecked hash), the hash seed is fixed, and a process of its own keeps what else was imported here from
# changing which strings are shared.
_COMPILER = """
import importlib._bootstrap_external as machinery, importlib.util, struct, sys
for line in sys.stdin.buffer:
    source, _, shown = line.rstrip(b"\\n").partition(b"\\0")
    text = open(source, "rb").read()
    try:
        code = compile(text, shown.decode(), "exec", dont_inherit=True, optimize=0)
        data = machinery._code_to_hash_pyc(code, importlib.util.source_hash(text), False)
    except (SyntaxError, ValueError):
        data = b""
    sys.stdout.buffer.write(struct.pack(">I", len(data)) + data)
"""


class ImageNotBuilt(Exception):
    """The image cannot be built or loaded. The message says why."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One member of the layer: a file on disk, given bytes, or a symbolic link."""

    source: Path | bytes | str
    executable: bool = False


def build_python_image(
    name: str, *, packages: Iterable[str], out: Path, files: Mapping[str, Path] | None = None
) -> str:
    """Write the image to the docker-archive `out`, to be loaded as `name` (such as `features:demo`); the image id.

    packages: distributions or importable names installed here (`pillow` or `PIL`); what they require comes with them.
    files: path in the image to file on disk.
    Raises ImageNotBuilt for a package that is not installed.
    """
    layer = _standard_library()
    for distribution in _with_requirements(packages):
        layer |= _distribution_files(distribution)
    layer |= _bytecode(layer)
    layer |= {path.lstrip("/"): _Entry(source, os.access(source, os.X_OK)) for path, source in (files or {}).items()}
    interpreter = Path(sys.base_prefix, "bin", _VERSION).resolve()
    layer[f"usr/local/bin/{_VERSION}"] = _Entry(interpreter, True)
    layer |= {f"usr/local/bin/{alias}": _Entry(_VERSION) for alias in ("python3", "python")}
    binaries = [entry for path, entry in layer.items() if ".so" in path or path.startswith("usr/local/bin/")]
    layer |= _libraries(binaries)
    return _write_archive(name, layer, out)


def build_tool_image(name: str, *, tools: Iterable[str], out: Path) -> str:
    """An image of a few programs of this machine (absolute paths) and their libraries: small, for a quick trial."""
    layer = {}
    for tool in tools:
        if not os.path.isfile(tool):
            raise ImageNotBuilt(f"{tool} is not a program of this machine")
        layer[f"usr/bin/{Path(tool).name}"] = _Entry(Path(tool).resolve(), True)
    layer |= _libraries(list(layer.values()))
    return _write_archive(name, layer, out)


def load_image(archive: Path) -> str:
    """Load a docker-archive into the local engine, as a stream; the image id. Raises ImageNotBuilt."""
    import docker  # here, not above: building needs no engine, and the package is slow to import
    import docker.errors

    try:
        engine = docker.from_env()
        with archive.open("rb") as data:
            (image,) = engine.images.load(data)
        return str(image.id)
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise ImageNotBuilt(f"{archive} cannot be loaded into the engine: {error}") from None


def _standard_library() -> dict[str, _Entry]:
    root = Path(sysconfig.get_path("stdlib")).resolve()
    layer = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith("config-")]
        for name in names:
            path = Path(folder, name)
            if path.suffix not in (".pyc", ".a") and path.is_file():
                layer[f"{_STDLIB}/{path.relative_to(root)}"] = _Entry(path)
    return layer


def _with_requirements(packages: Iterable[str]) -> list[importlib.metadata.Distribution]:
    by_import = importlib.metadata.packages_distributions()
    found: dict[str, importlib.metadata.Distribution] = {}
    wanted = [(name, True) for name in packages]
    while wanted:
        name, required = wanted.pop()
        try:
            distribution = importlib.metadata.distribution(by_import.get(name, [name])[0])
        except importlib.metadata.PackageNotFoundError:
            if required:
                raise ImageNotBuilt(f"package {name} is not installed here") from None
            continue  # for another platform or Python: the installer left it out as well
        if distribution.name in found:
            continue
        found[distribution.name] = distribution
        for requirement in distribution.requires or ():
            words, _, marker = requirement.partition(";")
            if "extra" not in marker:
                wanted.append((re.split(r"[^A-Za-z0-9._-]", words.strip(), maxsplit=1)[0], False))
    return [found[name] for name in sorted(found)]


def _distribution_files(distribution: importlib.metadata.Distribution) -> dict[str, _Entry]:
    layer = {}
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        outside = file.parts[0] == ".."  # scripts, which name this machine's interpreter
        # Who installed it, and with what, differs from machine to machine.
        about_installing = file.name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
        unneeded = file.suffix == ".pyc" or "tests" in file.parts
        if not (outside or about_installing or unneeded) and path.is_file():
            layer[f"{_STDLIB}/site-packages/{file}"] = _Entry(path)
    return layer


def _bytecode(layer: Mapping[str, _Entry]) -> dict[str, _Entry]:
    """Compiled modules. Under a read-only root nobody could keep them, and every start would compile anew."""
    sources = [(path, str(entry.source)) for path, entry in sorted(layer.items()) if path.endswith(".py")]
    request = "".join(f"{source}\0/{path}\n" for path, source in sources).encode()
    answer = subprocess.run(
        [sys.executable, "-S", "-s", "-P", "-c", _COMPILER],
        input=request,
        capture_output=True,
        env={"PYTHONHASHSEED": "0"},
        check=True,
    ).stdout
    compiled, at = {}, 0
    for path, _ in sources:
        size = int.from_bytes(answer[at : at + 4], "big")
        data, at = answer[at + 4 : at + 4 + size], at + 4 + size
        folder, _, name = path.rpartition("/")
        if data:
            compiled[f"{folder}/__pycache__/{name[:-3]}.{sys.implementation.cache_tag}.pyc"] = _Entry(data)
    return compiled


def _libraries(binaries: Iterable[_Entry]) -> dict[str, _Entry]:
    """The shared libraries that `binaries` are linked with, from outside the folders of Python packages."""
    paths = sorted(str(binary.source.resolve()) for binary in binaries if isinstance(binary.source, Path))
    listing = subprocess.run(["ldd", *paths], capture_output=True, text=True, check=False).stdout
    found = dict(re.findall(r"^\s*(\S+) => (/\S+)", listing, re.MULTILINE))
    loader = re.search(r"^\s*(/\S*/ld-linux\S*)", listing, re.MULTILINE)
    if "libc.so.6" not in found or loader is None:
        raise ImageNotBuilt("the libraries that Python needs cannot be listed with ldd")
    system = Path(found["libc.so.6"]).resolve().parent
    for name in _ASSUMED_LIBRARIES:
        if (system / name).exists():
            found.setdefault(name, str(system / name))
    packages = os.sep + "site-packages" + os.sep
    layer = {
        f"{_below_usr(system)}/{name}": _Entry(Path(path).resolve(), True)
        for name, path in found.items()
        if packages not in path
    }
    layer[_below_usr(Path(loader[1]))] = _Entry(Path(loader[1]).resolve(), True)
    return layer


def _below_usr(path: Path) -> str:
    text = str(path).lstrip("/")
    return text if text.startswith("usr/") else f"usr/{text}"


def _write_archive(name: str, layer: Mapping[str, _Entry], out: Path) -> str:
    layer = dict(layer)
    layer |= {link: _Entry(target) for link, target in _LINKS.items()}
    layer |= {"etc/passwd": _Entry(_PASSWD), "etc/group": _Entry(b"root:x:0:\ntask:x:65534:\n")}
    with tempfile.TemporaryFile(dir=out.parent) as tar:
        _write_layer(layer, tar)
        digest = _sha256(tar)
        configuration = _json(
            {
                "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
                "os": "linux",
                "created": "1970-01-01T00:00:00Z",
                "config": {
                    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"],
                    "Cmd": ["python3"],
                    "User": "65534:65534",
                },
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
                "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "meshnode"}],
            }
        )
        image = hashlib.sha256(configuration).hexdigest()
        config_name, layer_name = f"{image}.json", f"{digest}/layer.tar"
        with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as archive:
            _add(archive, config_name, io.BytesIO(configuration), len(configuration))
            _add(archive, layer_name, tar, tar.seek(0, os.SEEK_END))
            manifest = _json([{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}])
            _add(archive, "manifest.json", io.BytesIO(manifest), len(manifest))
    return f"sha256:{image}"


def _write_layer(layer: Mapping[str, _Entry], out: BinaryIO) -> None:
    folders = dict(_SKELETON)
    for path in layer:
        for parent in Path(path).parents:
            folders.setdefault(str(parent), 0o755)
    del folders["."]
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for folder in sorted(folders):
            tar.addfile(_member(folder, tarfile.DIRTYPE, folders[folder]))
        for path, entry in sorted(layer.items()):
            mode = 0o755 if entry.executable else 0o644
            if isinstance(entry.source, str):
                link = _member(path, tarfile.SYMTYPE, 0o777)
                link.linkname = entry.source
                tar.addfile(link)
            elif isinstance(entry.source, bytes):
                _add(tar, path, io.BytesIO(entry.source), len(entry.source), mode)
            else:
                with entry.source.open("rb") as data:
                    _add(tar, path, data, os.fstat(data.fileno()).st_size, mode)


def _add(tar: tarfile.TarFile, path: str, data: BinaryIO, size: int, mode: int = 0o644) -> None:
    member = _member(path, tarfile.REGTYPE, mode)
    member.size = size
    data.seek(0)
    tar.addfile(member, data)


def _member(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    """A tar header that names no time and no person."""
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.mtime = kind, mode, 0
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _sha256(data: BinaryIO) -> str:
    digest = hashlib.sha256()
    data.seek(0)
    while chunk := data.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
