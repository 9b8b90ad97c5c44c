"""Control groups of version 2, on a copy of the kernel's files; version 1 or 2 for real in the contract tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from meshnode.runtimes.cgroups import Cgroup, CgroupFactory, CgroupsUnavailable


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (base := tmp_path / "cgroup" / "mesh.service").mkdir(parents=True)
    (tmp_path / "cgroup" / "cgroup.controllers").write_text("cpu memory pids")
    (base / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (tmp_path / "own").write_text("0::/mesh.service\n")
    return tmp_path


def factory(tree: Path) -> CgroupFactory:
    return CgroupFactory(mount=tree / "cgroup", own=tree / "own")


def test_version_2_limits_are_written_below_the_nodes_own_group(tree: Path) -> None:
    group = factory(tree).create("mesh-n-b-1", memory_bytes=1000, pids=7, cpu=1.5)
    folder = tree / "cgroup" / "mesh.service" / "mesh-n-b-1"
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "memory.max": "1000",
        "memory.oom.group": "1",
        "pids.max": "7",
        "cpu.max": "150000 100000",
    }
    assert group.entrances == [str(folder / "cgroup.procs")]
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert group.out_of_memory_kills() == 2
    assert [group.name for group in factory(tree).named("mesh-n-")] == ["mesh-n-b-1"]


def test_a_node_that_stepped_aside_makes_groups_beside_itself(tree: Path) -> None:
    (tree / "own").write_text("0::/mesh.service/mesh-node\n")
    group = factory(tree).create("mesh-n-b-1", memory_bytes=1000, pids=7, cpu=1)
    assert group.folders == [tree / "cgroup" / "mesh.service" / "mesh-n-b-1"]


def unified_tree() -> Path | None:
    """Where this machine has the tree of version 2, be it without controllers; None where it cannot be written."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(place, os.W_OK):
            return Path(place)
    return None


@pytest.mark.skipif(unified_tree() is None, reason="no writable tree of version 2")
def test_version_2_kills_all_at_once() -> None:
    (folder := unified_tree() / f"mesh-test-{os.getpid()}").mkdir()
    group = Cgroup(2, [folder])
    program = "import sys, time; open(sys.argv[1], 'w').write('0'); print(flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", program, *group.entrances], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        group.destroy()
        assert process.wait() == -signal.SIGKILL
    assert not folder.exists()


def test_a_tree_that_is_not_there_is_told(tree: Path) -> None:
    (tree / "own").write_text("0::/elsewhere\n")
    with pytest.raises(CgroupsUnavailable, match="not ours to divide"):
        factory(tree)
