"""What the rest of the node relies on, in every runtime: outcomes, limits, and that nothing stays behind."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from meshnode.runtimes import output
from meshnode.runtimes.base import STDERR_TAIL_BYTES, STDOUT_BYTES_MAX, RunRefused, RuntimeFault
from meshnode.runtimes.cgroups import CgroupFactory
from meshnode.runtimes.output import collect_output

MIB = 1 << 20

SHOW_THE_WORLD = """
import json, os, sys
from pathlib import Path
output = Path(os.environ["MESH_OUTPUT"])
(output / "parts").mkdir()
(output / "parts" / "one.txt").write_text("one")
(output / "output.json").write_text((Path(os.environ["MESH_INPUT"]) / "input.json").read_text())
os.chmod(output / "output.json", 0o000)
Path("/tmp/scratch").write_text("tmp is writable")
helper = Path("helper.txt").read_text()
print(json.dumps({"helper": helper, "stage": os.environ["MESH_STAGE"], "words": sys.argv[1:],
                  "home": os.environ["HOME"], "model": os.getcwd() == os.environ["MESH_MODEL"],
                  "hash": os.environ["PYTHONHASHSEED"],
                  "threads": os.environ["OMP_NUM_THREADS"], "stdin": sys.stdin.read()}))
print("a word on stderr", file=sys.stderr)
"""


def test_a_task_reads_its_input_and_its_output_becomes_the_nodes(place) -> None:
    request = place.request(
        SHOW_THE_WORLD,
        files={"helper.txt": "help"},
        command=("python3", "program.py", "a b", "$HOME"),
        env={"MESH_STAGE": "first"},
        cpu=1.5,
    )
    ended = trio.run(place.runtime.run, request)
    assert (ended.cause, ended.exit_code, ended.stdout_truncated) == ("exited", 0, False), ended.stderr_tail
    assert ended.stdout.decode() == (
        '{"helper": "help", "stage": "first", "words": ["a b", "$HOME"], "home": "/tmp", '
        '"model": true, "hash": "0", "threads": "2", "stdin": ""}\n'
    )
    assert ended.stderr_tail == "a word on stderr\n"
    files = collect_output(request.output_dir)
    assert [(file.path, file.size) for file in files] == [("output.json", 14), ("parts/one.txt", 3)]
    with files[0].open() as data:
        assert data.read() == b'{"answer": 42}'
    for path in (request.output_dir, *request.output_dir.rglob("*")):
        assert path.stat().st_uid == os.getuid()
    assert ended.run_ms > 0
    assert ended.started_at > 1_700_000_000_000


@pytest.mark.parametrize(
    ("program", "code"),
    [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 15)", 143), ("no python at all", 1)],
)
def test_the_exit_code_is_the_shells(place, program: str, code: int) -> None:
    ended = trio.run(place.runtime.run, place.request(program))
    assert (ended.cause, ended.exit_code) == ("exited", code)


def test_a_command_that_is_not_there_is_the_tasks_fault(place) -> None:
    ended = trio.run(place.runtime.run, place.request("", command=("no-such-program",)))
    assert (ended.cause, ended.exit_code) == ("exited", 127)
    assert "no-such-program" in ended.stderr_tail


def test_stdout_is_capped_and_stderr_keeps_its_end(place) -> None:
    program = f"""
import sys
block = b"x" * {MIB}
for _ in range({STDOUT_BYTES_MAX // MIB + 2}):
    sys.stdout.buffer.write(block)
    sys.stderr.write("e" * 100_000)
sys.stderr.write("the end")
"""
    ended = trio.run(place.runtime.run, place.request(program))
    assert ended.exit_code == 0
    assert (len(ended.stdout), ended.stdout_truncated) == (STDOUT_BYTES_MAX, True)
    assert len(ended.stderr_tail) == STDERR_TAIL_BYTES
    assert ended.stderr_tail.endswith("the end")


SPAWN_AND_WAIT = """
import subprocess, sys, time
for _ in range(3):
    subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); time.sleep(1000)"], start_new_session=True)
open(__import__("os").environ["MESH_OUTPUT"] + "/ready", "w").close()
{then}
"""


def test_a_task_that_takes_too_long_is_killed_with_all_it_started(place) -> None:
    ended = trio.run(place.runtime.run, place.request(SPAWN_AND_WAIT.format(then="time.sleep(1000)"), timeout_s=1.5))
    assert (ended.cause, ended.exit_code) == ("timeout", None)


def test_what_a_task_leaves_running_is_killed_at_its_end(place) -> None:
    ended = trio.run(place.runtime.run, place.request(SPAWN_AND_WAIT.format(then="print('done')")))
    assert (ended.cause, ended.exit_code, ended.stdout) == ("exited", 0, b"done\n")


def test_cancellation_kills_the_task_and_all_it_started(place, until: Callable) -> None:
    request = place.request(SPAWN_AND_WAIT.format(then="time.sleep(1000)"))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.runtime.run, request)
            await until((request.output_dir / "ready").exists)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert place.leftovers() == []
    assert request.output_dir.stat().st_uid == os.getuid()


def test_cancellation_before_the_start_leaves_nothing(place) -> None:
    async def main() -> None:
        with trio.move_on_after(0):
            await place.runtime.run(place.request("print()"))

    trio.run(main)


def test_too_much_memory_is_told_apart(place, control_groups: CgroupFactory) -> None:
    program = "blocks = []\nwhile True: blocks.append(bytearray(b'x') * (1 << 20))"
    ended = trio.run(place.runtime.run, place.request(program, memory_bytes=64 * MIB))
    assert ended.cause == "out-of-memory"
    assert ended.exit_code == 137


def test_memory_in_tmp_is_the_tasks_memory(place) -> None:
    program = """
with open("/tmp/big", "wb") as file:
    for _ in range(1024):
        file.write(bytes(1 << 20))
"""
    ended = trio.run(place.runtime.run, place.request(program, memory_bytes=64 * MIB))
    assert ended.exit_code != 0


FORK_BOMB = """
import os, time
made = 0
try:
    while made < 200:
        if os.fork() == 0:
            time.sleep(1000)
        made += 1
except OSError:
    print(made, flush=True)
os._exit(0)
"""


def test_a_fork_bomb_stops_at_the_limit(place) -> None:
    ended = trio.run(place.runtime.run, place.request(FORK_BOMB, pids=16))
    assert ended.exit_code == 0, ended.stderr_tail
    assert int(ended.stdout) <= 16


@pytest.mark.parametrize("kind", ["one large file", "many files", "deep folders"])
def test_too_much_output_ends_the_task(place, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "OUTPUT_FILES_MAX", 500)
    action = {
        "one large file": 'with open("big", "wb") as f:\n    while True: f.write(bytes(1 << 20)); f.flush()',
        "many files": "for n in range(10**9): open(str(n), 'w').close()",
        "deep folders": "while True: os.mkdir('d'); os.chdir('d')",
    }[kind]
    program = "import os, time\nos.chdir(os.environ['MESH_OUTPUT'])\n"
    program += f"try:\n    exec({action!r})\nfinally:\n    time.sleep(100)"  # whatever stops it, it does not end
    ended = trio.run(place.runtime.run, place.request(program, output_bytes_max=4 * MIB, timeout_s=30))
    assert (ended.cause, ended.exit_code) == ("output-too-large", None)


def test_output_over_the_cap_at_the_very_end_is_noticed(place) -> None:
    program = "import os; open(os.environ['MESH_OUTPUT'] + '/x', 'wb').write(bytes(1001))"
    ended = trio.run(place.runtime.run, place.request(program, output_bytes_max=1000))
    assert ended.cause == "output-too-large"


@pytest.mark.skipif(os.geteuid() != 0, reason="Landlock alone has no shared memory to give")
def test_a_task_may_use_several_processes(place) -> None:
    program = """
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(sum(pool.map(abs, range(-3, 0))))
"""
    ended = trio.run(place.runtime.run, place.request(program))
    assert ended.stdout == b"6\n", ended.stderr_tail


def test_many_tasks_at_once(place) -> None:
    results: dict[int, bytes] = {}

    async def one(number: int) -> None:
        request = place.request(f"print({number})")
        results[number] = (await place.runtime.run(request)).stdout

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(one, number)

    trio.run(main)
    assert results == {number: f"{number}\n".encode() for number in range(6)}


def test_a_task_with_the_network_reaches_it(sandbox_place) -> None:
    program = "import socket; print(socket.create_server(('127.0.0.1', 0)).getsockname()[0])"
    ended = trio.run(sandbox_place.runtime.run, sandbox_place.request(program, network=True))
    assert ended.stdout == b"127.0.0.1\n", ended.stderr_tail


def test_the_nodes_packages_import_in_the_sandbox(sandbox_place) -> None:
    program = """
import numpy, pyvips, scipy.ndimage, PIL.Image, sys, subprocess
image = pyvips.Image.black(64, 64) + 5
image.write_to_file(__import__("os").environ["MESH_OUTPUT"] + "/tile.png")
child = subprocess.run(["python3", "-c", "import numpy, sys; print(sys.prefix)"], capture_output=True, text=True)
print(float(image.numpy().mean()), child.stdout.strip() == sys.prefix)
"""
    request = sandbox_place.request(program, memory_bytes=512 * MIB)
    ended = trio.run(sandbox_place.runtime.run, request)
    assert ended.stdout == b"5.0 True\n", ended.stderr_tail
    assert [file.path for file in collect_output(request.output_dir)] == ["tile.png"]


def test_sweep_removes_what_an_earlier_boot_left_and_only_that(
    make_place: Callable, control_groups: CgroupFactory
) -> None:
    """For the sandbox; a container's sweep stands with the other container tests."""
    earlier = make_place("bubblewrap", boot_id="boot1")
    (earlier.home / "boot1" / "run-1").mkdir(parents=True)
    (earlier.home / "boot1" / "run-1" / "tmp").write_text("left")
    group = earlier.runtime._cgroups.create(
        f"mesh-{earlier.node_id}-boot1-run-1", memory_bytes=64 * MIB, pids=8, cpu=1.0
    )
    later = make_place("bubblewrap", boot_id="boot2", node_id=earlier.node_id)
    later.runtime._home = earlier.home
    (earlier.home / "boot2" / "run-1").mkdir(parents=True)
    assert trio.run(later.runtime.sweep) == 2
    assert not any(folder.exists() for folder in group.folders)
    assert [path.name for path in earlier.home.iterdir()] == ["boot2"]
    (earlier.home / "boot2" / "run-1").rmdir()


def test_requests_for_the_other_kind_are_refused(make_place: Callable, tmp_path: Path) -> None:
    sandbox = make_place("bubblewrap")
    with pytest.raises(RunRefused, match="runs no images"):
        trio.run(sandbox.runtime.run, sandbox.request("", image="sha256:" + "0" * 64))


@pytest.mark.skipif(os.geteuid() != 0, reason="only with root is the task another user")
def test_a_model_that_the_task_could_not_read_is_the_nodes_fault(place) -> None:
    request = place.request("print()")
    request.model_dir.chmod(0o700)
    with pytest.raises(RuntimeFault, match="model is closed to other users"):
        trio.run(place.runtime.run, request)


def test_a_run_id_is_used_once_at_a_time(make_place: Callable, until: Callable) -> None:
    place = make_place("bubblewrap")

    async def main() -> None:
        request = place.request("import time; time.sleep(100)", timeout_s=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.runtime.run, request)
            await until(lambda: list(place.home.glob("*/*")))
            with pytest.raises(RuntimeFault, match="in use"):
                await place.runtime.run(request)

    trio.run(main)


@pytest.mark.parametrize("run_id", ["", "a/b", "..", ".hidden", "a b", "x" * 101, "ä"])
def test_a_run_id_that_is_no_file_name_is_refused(make_place: Callable, run_id: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        make_place("bubblewrap").request("", run_id=run_id)


def test_killing_the_node_kills_its_tasks(sandbox_place, until: Callable) -> None:
    """As `kill -9` does: no cleanup code of the node runs."""
    request = sandbox_place.request(SPAWN_AND_WAIT.format(then="time.sleep(1000)"))
    node = os.fork()
    if node == 0:
        try:
            trio.run(sandbox_place.runtime.run, request)
        finally:
            os._exit(1)

    trio.run(until, (request.output_dir / "ready").exists)
    os.kill(node, 9)
    os.waitpid(node, 0)
    trio.run(until, lambda: not [left for left in sandbox_place.leftovers() if left.startswith("process")])
    sandbox_place.runtime._boot_id = "later"
    assert trio.run(sandbox_place.runtime.sweep) >= 1
