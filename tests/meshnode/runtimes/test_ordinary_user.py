"""The sandbox of a node that is not root: same walls, with user namespaces, without control groups."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from meshnode.runtimes.interpreter import node_interpreter

SCRIPT = Path(__file__).with_name("ordinary_user.py")
USER = "65533"


def run_as_user(kind: str, folder: Path, targets: dict[str, object]) -> dict[str, list]:
    """This user may not reach our interpreter or our code, so both are shown in a mount namespace."""
    interpreter = node_interpreter()
    (code := folder / "code").mkdir()
    root = SCRIPT.parents[3]
    shutil.copytree(root / "meshnode", code / "meshnode", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("ordinary_user.py", "probe.py"):
        shutil.copy(SCRIPT.with_name(name), code)
    setup = "mount -t tmpfs none /mnt && mkdir /mnt/python /mnt/packages /mnt/code /mnt/work && chmod 777 /mnt/work"
    for source, target in ((interpreter.prefix, "python"), (interpreter.site_packages[0], "packages"), (code, "code")):
        setup += f' && mount --bind "{source}" /mnt/{target}'
    setup += f' && exec setpriv --reuid {USER} --regid {USER} --clear-groups "$@"'
    command = ["unshare", "--mount", "sh", "-c", setup, "sh"]
    command += [
        f"/mnt/python/{interpreter.program}",
        "/mnt/code/ordinary_user.py",
        kind,
        "/mnt/work",
        json.dumps(targets),
    ]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": "/mnt/code:/mnt/packages", "PYTHONDONTWRITEBYTECODE": "1"}
    env |= interpreter.library_path("/mnt/python")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="as an ordinary user all the other tests check just this")
@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
def test_the_walls_stand_without_root(kind: str, tmp_path: Path, targets: dict[str, object]) -> None:
    results = run_as_user(kind, tmp_path, targets)
    cause, code, stdout, stderr, _ = results["probe"]
    assert (cause, code) == ("exited", 0), stderr
    assert {name: how for name, how in json.loads(stdout).items() if how == "done"} == {}
    assert results["own file"][2].split() == ["unchanged"]
    assert (results["memory"][0], results["memory"][1]) == ("exited", 1)
    assert "MemoryError" in results["memory"][3]
    assert int(results["processes"][2]) <= 16
    assert results["timeout"][0] == "timeout"
    assert results["output"][4] == ["d/f"]
    assert results["warm"] == [["words"], ["words", "words"], True, False]
    assert results["left"] == []
    assert results["cgroups"] != ""
