"""Runs tasks with a node that is not root, and prints what came of it as JSON. Started by test_ordinary_user.

python ordinary_user.py bubblewrap|landlock FOLDER TARGETS
"""

import json
import sys
from pathlib import Path
from typing import Any

import trio

from meshnode.runtimes.base import RunRequest
from meshnode.runtimes.bubblewrap import Bubblewrap
from meshnode.runtimes.interpreter import node_interpreter
from meshnode.runtimes.landlock import Landlock
from meshnode.runtimes.output import collect_output, remove_tree
from meshnode.runtimes.pool import WarmKey, WarmPool
from meshnode.runtimes.sandbox import Sandbox

MIB = 1 << 20
HERE = Path(__file__).parent
# The owner's file, by its real path: a task under the same user must not even change its mode.
OWN_FILE = """
import os, shutil, sys
for change in (lambda: os.chmod(sys.argv[1], 0o777), lambda: os.utime(sys.argv[1], (1, 1)),
               lambda: open(sys.argv[1], "w"), lambda: print(open(sys.argv[1]).read())):
    try:
        change()
    except OSError:
        pass
shutil.copy("program.py", os.environ["MESH_OUTPUT"])
"""
WARM = """
import os
from meshmodel import serve
answered = []
def handler(input):
    answered.append(open(os.environ["MESH_INPUT"] + "/given").read())
    open(os.environ["MESH_OUTPUT"] + "/made", "w").close()
    return answered
serve(handler)
"""
PROGRAMS = {
    "probe": ((HERE / "probe.py").read_text(), {}),
    "own file": (OWN_FILE, {}),
    "memory": ("x = bytearray(b'x') * (1 << 30)", {"memory_bytes": 64 * MIB}),
    "processes": (
        "import os, time\nmade = 0\ntry:\n  while made < 200:\n    if os.fork() == 0: time.sleep(1000)\n    made += 1\n"
        "except OSError:\n  print(made, flush=True)\nos._exit(0)",
        {"pids": 16},
    ),
    "timeout": (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'], start_new_session=True)\n"
        "time.sleep(1000)",
        {"timeout_s": 1},
    ),
    "output": (
        "import os\nos.chdir(os.environ['MESH_OUTPUT'])\nos.mkdir('d')\nopen('d/f', 'w').write('x')\nos.chmod('d', 0)",
        {},
    ),
}


async def main() -> None:
    kind, folder, targets = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    interpreter = node_interpreter()
    confinement = Bubblewrap(interpreter) if kind == "bubblewrap" else Landlock(interpreter, private_mounts=False)
    runtime = Sandbox(confinement, interpreter, home=folder / "home", node_id="user", boot_id="boot")
    (own := folder / "own").write_text("the owner's")
    before = own.stat()
    results: dict[str, Any] = {}
    for number, (name, (program, settings)) in enumerate(PROGRAMS.items()):
        place = folder / str(number)
        for part in ("model", "input", "output"):
            (place / part).mkdir(parents=True)
        (place / "input" / "input.json").write_text(targets)
        (place / "model" / "program.py").write_text(program)
        request = RunRequest(
            run_id=str(number),
            command=("python3", "program.py", str(folder / "own")),
            model_dir=place / "model",
            input_dir=place / "input",
            output_dir=place / "output",
            env={"MESH_TEST": str(folder)},
            **settings,
        )
        ended = await runtime.run(request)
        files = [file.path for file in collect_output(place / "output")] if name == "output" else []
        results[name] = [ended.cause, ended.exit_code, ended.stdout.decode(), ended.stderr_tail, files]
        remove_tree(place)
    results["warm"] = await ask_a_loaded_model(runtime, folder)
    after = own.stat()
    if (after.st_mode, after.st_mtime, after.st_size) == (before.st_mode, before.st_mtime, before.st_size):
        results["own file"][2] += "unchanged"
    results["left"] = [str(path) for path in (folder / "home").glob("*/*")]
    results["cgroups"] = runtime.why_no_cgroups
    print(json.dumps(results))


async def ask_a_loaded_model(runtime: Sandbox, folder: Path) -> list[Any]:
    """Two answers of one process, and what it read and wrote of files."""
    (folder / "warm model").mkdir()
    (folder / "warm model" / "program.py").write_text(WARM)

    def make_request(run_id: str, input_dir: Path, output_dir: Path) -> RunRequest:
        (input_dir / "given").write_text("words")
        return RunRequest(
            run_id=run_id,
            command=("python3", "program.py"),
            model_dir=folder / "warm model",
            input_dir=input_dir,
            output_dir=output_dir,
        )

    async with trio.open_nursery() as nursery:
        pool = await WarmPool.start(runtime, folder / "warm", nursery, slots=1, memory_bytes=1 << 30, idle_s=600)
        async with pool.lent(WarmKey("m", "s", 1.0, 64 * MIB), make_request) as (model, _):

            def work() -> list[Any]:
                model.loaded(60)
                answers = [model.ask(b"{}", {}, 60), model.ask(b"{}", {}, 60), model.has_written()]
                model.tidy()
                return [*answers, model.has_written()]

            answers = await model.use(work, pool.limiter)
        nursery.cancel_scope.cancel()
    return answers


trio.run(main)
