"""The house rules that imports and names can show; ``docs/ARCHITECTURE.md`` says why they are there."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("protocol", "meshnode", "simulations")

Import = tuple[str, str | None]
"""A module, and the name taken from it."""


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = {name: path for package in PACKAGES for name, path in modules(package).items()}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imports(name: str) -> Iterator[Import]:
    """What a module imports, wherever in it; relative imports are resolved."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = name.split(".") if MODULES[name].name == "__init__.py" else name.split(".")[:-1]
                module = ".".join([*package[: len(package) - node.level + 1], *([module] if module else [])])
            yield from ((module, alias.name) for alias in node.names)


def top(module: str) -> str:
    return module.partition(".")[0]


def in_package(*packages: str) -> list[str]:
    return [
        name for name in MODULES if name.startswith(tuple(f"{package}." for package in packages)) or name in packages
    ]


# -- who may import whom --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("protocol", {"meshnode", "simulations", "tests"}),
        ("meshnode", {"simulations", "tests"}),
        ("simulations", {"meshnode", "tests"}),
    ],
)
def test_packages_keep_apart(package: str, forbidden: set[str]) -> None:
    crossing = [
        (name, module) for name in in_package(package) for module, _ in imports(name) if top(module) in forbidden
    ]
    assert crossing == []


def test_libp2p_is_known_in_one_place() -> None:
    """Its exceptions and its defects are dealt with in ``meshnode/net`` and nowhere else."""
    assert {name for name in MODULES if "libp2p" in {top(module) for module, _ in imports(name)}} <= set(
        in_package("meshnode.net")
    )


def test_docker_is_known_in_one_place() -> None:
    allowed = {*in_package("meshnode.runtimes"), "meshnode.images"}
    assert {name for name in MODULES if "docker" in {top(module) for module, _ in imports(name)}} <= allowed


# -- the core is a function of its inputs ---------------------------------------------------------------------

CORE_MAY_IMPORT = {
    "__future__", "base64", "binascii", "collections", "dataclasses", "datetime", "enum", "functools", "hashlib",
    "heapq", "itertools", "json", "math", "random", "re", "typing",
    "base58", "cbor2", "msgspec", "nacl", "protocol",
}  # fmt: skip


@pytest.mark.parametrize("name", in_package("protocol"))
def test_the_core_imports_only_values(name: str) -> None:
    """No clock, no socket, no thread, no log, no source of randomness but the one it is given."""
    assert {top(module) for module, _ in imports(name)} <= CORE_MAY_IMPORT
    for module, imported in imports(name):
        if top(module) == "random":
            assert imported == "Random", f"{name} takes {imported} from the module random"
        if top(module) == "datetime":
            assert imported in ("UTC", "datetime", "timedelta")


@pytest.mark.parametrize("name", in_package("protocol"))
def test_the_core_never_awaits_and_never_asks_the_time(name: str) -> None:
    for node in ast.walk(TREES[name]):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith), node.lineno
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("now", "utcnow", "today") or ast.unparse(node.value) not in (
                "datetime", "date", "datetime.datetime",
            ), node.lineno  # fmt: skip
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Random", "id", "hash", "input", "print", "open"):
            raise AssertionError(f"{name}:{node.lineno} calls {ast.unparse(node.func)}")


@pytest.mark.parametrize("name", in_package("protocol"))
def test_the_core_never_goes_through_a_set_in_its_own_order(name: str) -> None:
    """The order of a set of texts differs from process to process, and so would the effects."""
    tree = TREES[name]
    sets = _names_of_sets(tree)
    for node in ast.walk(tree):
        loops = [node.iter] if isinstance(node, ast.For | ast.comprehension) else []
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("list", "tuple", "iter", "next", "dict.fromkeys"):
            loops += node.args[:1]
        for looped in loops:
            assert not _is_set(looped, sets), f"{name}:{looped.lineno} goes through {ast.unparse(looped)}"


def _names_of_sets(tree: ast.AST) -> set[str]:
    """Variables and attributes that are annotated as sets, or are given one."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            if re.match(r"(set|frozenset)\b", ast.unparse(node.annotation)):
                names.add(node.arg if isinstance(node, ast.arg) else ast.unparse(node.target))
        elif isinstance(node, ast.Assign) and _is_set(node.value, set()):
            names.update(ast.unparse(target) for target in node.targets)
    return names


def _is_set(node: ast.expr, names: set[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("set", "frozenset"):
        return True
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return _is_set(node.left, names) or _is_set(node.right, names)
    return ast.unparse(node) in names


# -- nothing lies about ---------------------------------------------------------------------------------------

#: Started by name, not imported: programs that run inside the sandbox.
PROGRAMS = ("meshnode.tasks",)


def entry_points() -> set[str]:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return {target.partition(":")[0] for target in scripts.values()} | {
        name for name in MODULES if name.endswith(".__main__")
    }


def test_every_module_is_imported_by_something() -> None:
    reached: set[str] = set()
    for name in MODULES:
        for module, imported in imports(name):
            reached.add(module)
            if imported is not None:
                reached.add(f"{module}.{imported}")
            reached.update(_by_name(name))
    used = reached | entry_points() | set(PACKAGES)
    unused = [
        name
        for name, path in MODULES.items()
        if name not in used and path.name != "__init__.py" and not name.startswith(PROGRAMS)
    ]
    assert unused == []


def _by_name(name: str) -> set[str]:
    """Modules that another one names in a text, to import or run them when they are wanted."""
    texts = {
        node.value for node in ast.walk(TREES[name]) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return texts & set(MODULES)


# -- nothing of one machine, nothing secret -------------------------------------------------------------------

TEXT = {".cfg", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml", ""}
MACHINE_PATHS = re.compile(r"(?<![\w.$}/:-])/(?:home|Users|root|work|workspace)/[\w.-]+")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_no_tracked_file_names_a_place_of_one_machine() -> None:
    found = []
    for path in tracked():
        if path == Path(__file__) or path.suffix not in TEXT or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if MACHINE_PATHS.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_nothing_made_by_tools_is_tracked() -> None:
    made = re.compile(r"(^|/)(__pycache__|\.venv|\.hypothesis|\.mypy_cache|\.pytest_cache|[^/]*\.egg-info)(/|$)")
    assert [path for path in tracked() if made.search(str(path.relative_to(ROOT)))] == []
