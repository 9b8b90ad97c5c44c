"""The command line as a user sees it: what is printed where, and the exit codes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meshnode.cli.group import run
from protocol.events import JobSubmitted
from protocol.wire import Role, Task
from tests.meshnode.api.fakes import FakeNode, running_api
from tests.meshnode.client.jobs import write_job


@dataclass
class Printed:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.err == ""
        return json.loads(self.out)


Infra = Callable[..., Printed]
MERGED = b'["merge 0"]'
"""What the merge of these tests' meshes makes."""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    monkeypatch.setenv("INFRA_HOME", str(tmp_path / "home"))
    with running_api(tmp_path / "node") as (node, url):
        monkeypatch.setenv("INFRA_API", url)
        yield node


@pytest.fixture
def infra(capfdbinary: pytest.CaptureFixture[bytes]) -> Infra:
    def call(*arguments: object) -> Printed:
        capfdbinary.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = capfdbinary.readouterr()
        return Printed(code, printed.out.decode(), printed.err.decode())

    return call


def test_a_job_from_submit_to_verify(node: FakeNode, infra: Infra, tmp_path: Path) -> None:
    job = write_job(tmp_path, job_id="bd92-e3f1")
    waited = infra("submit", job, "--wait", "--json")
    assert waited.code == 0
    assert (waited.json["job_id"], waited.json["status"], waited.json["succeeded"]) == ("bd92-e3f1", "success", 4)
    assert infra("job", "--id", "bd92-e3f1", "--json").json == waited.json
    assert [one["job_id"] for one in infra("jobs", "--json").json] == ["bd92-e3f1"]

    details = infra("job", "--id", "bd92-e3f1", "--details", "--json")
    file = tmp_path / "details.json"
    file.write_text(details.out)
    good = infra("verify", file)
    assert (good.code, good.out) == (0, f"{file}: 6 receipts, all good, as are 2 votes for the job's end\n")

    changed = details.json
    changed["receipts"][3]["latency_ms"] += 1
    file.write_text(json.dumps(changed))
    bad = infra("verify", file)
    assert bad.code == 1
    assert bad.err.startswith(f"error: {file}: receipts[3].latency_ms: is ")
    assert infra("verify", file, "--json").json["problems"][0]["place"] == "receipts[3].latency_ms"

    output = tmp_path / "output.json"
    fetched = infra("output", "--job", "bd92-e3f1", "-o", output, "--json")
    assert fetched.json["output_hash"] == "0x" + hashlib.sha256(output.read_bytes()).hexdigest()
    assert infra("output", "--job", "bd92-e3f1", "-o", "-").out.encode() == output.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_job_for_people(node: FakeNode, infra: Infra, tmp_path: Path) -> None:
    accepted = infra("submit", write_job(tmp_path, job_id="mine"))
    assert accepted.out.startswith("mine accepted, full id ")
    watched = infra("job", "--id", "mine", "--watch")
    assert watched.out.splitlines()[-1] == "mine  success, 4/4 shards, merge success"
    shown = infra("job", "--id", "mine", "--details").out
    assert "mine-03" in shown
    assert "mine.merge" in shown
    assert "success" in infra("jobs").out


def test_submit_without_wait_prints_the_id(node: FakeNode, infra: Infra, tmp_path: Path) -> None:
    printed = infra("submit", write_job(tmp_path), "--json").json
    assert printed["full_id"].startswith(printed["job_id"].replace("-", ""))


def test_a_failed_job_is_exit_code_1_and_says_why(node: FakeNode, infra: Infra, tmp_path: Path) -> None:
    node.mesh.fail_task[Task(role=Role.SHARD, index=2)] = "exit code 1: no such star"
    waited = infra("submit", write_job(tmp_path), "--wait", "--json")
    assert waited.code == 1
    assert waited.json["status"] == "failed"
    assert "no such star" in waited.json["error"]
    asked = infra("job", "--id", waited.json["full_id"])
    assert asked.code == 0
    assert "no such star" in asked.out
    output = infra("output", "--job", waited.json["full_id"], "-o", tmp_path / "o")
    assert (output.code, (tmp_path / "o").exists()) == (2, False)
    assert "has no output: it is failed" in output.err


def test_a_job_that_nobody_can_run_says_why_peer_by_peer(node: FakeNode, infra: Infra, tmp_path: Path) -> None:
    accepted = infra("submit", write_job(tmp_path, resources={"memory": "900GiB"}), "--json").json
    for _ in range(10):
        job = infra("job", "--id", accepted["full_id"], "--json").json
    assert job["status"] == "queued"
    assert "no peer can run it" in job["waiting"]
    assert {refusal["node_id"] for refusal in job["refusals"]} == set(node.mesh.peers)
    assert "memory 1 < 900 GiB" in infra("job", "--id", accepted["full_id"]).out


def test_cancel(node: FakeNode, infra: Infra, tmp_path: Path) -> None:
    node.mesh.held_runs.update(node.mesh.peers)
    accepted = infra("submit", write_job(tmp_path), "--json").json
    assert infra("cancel", "--id", accepted["job_id"]).out == f"{accepted['job_id']} is cancelled\n"
    assert infra("cancel", "--id", accepted["job_id"], "--json").json["status"] == "cancelled"


def test_a_finished_job_is_not_cancelled(node: FakeNode, infra: Infra, tmp_path: Path) -> None:
    job = infra("submit", write_job(tmp_path, job_id="mine"), "--wait", "--json").json
    done = infra("cancel", "--id", "mine")
    assert (done.code, done.out) == (0, f"mine already finished: success, output {job['output_hash']}\n")


def test_without_a_majority_a_result_is_provisional_and_a_cancel_requested(
    node: FakeNode, infra: Infra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshnode.client.client.CANCEL_TIMEOUT_S", 0.0)
    others = {node.mesh.ids["bob"], node.mesh.ids["cyd"]}
    node.mesh.held_runs.update(others)
    infra("submit", write_job(tmp_path, job_id="mine"))
    node.mesh.kill("bob")
    node.mesh.kill("cyd")
    node.mesh.run_for(60)
    made = f"0x{hashlib.sha256(MERGED).hexdigest()}"
    shown = infra("job", "--id", "mine")
    assert "running" in shown.out.splitlines()[0]
    assert "provisionally success" in shown.out.splitlines()[0]
    assert f"success, output {made}, by {node.peer_id} alone: not final" in shown.out
    found = infra("job", "--id", "mine", "--json").json
    assert found["provisional"] == {"status": "success", "output_hash": made, "by": node.peer_id}
    cancelled = infra("cancel", "--id", "mine")
    assert (cancelled.code, cancelled.out) == (3, "mine: requested; no majority of the job's holders answers\n")


def test_the_details_say_who_holds_the_job_and_who_took_it_over(node: FakeNode, infra: Infra, tmp_path: Path) -> None:
    node.mesh.held_runs.update(node.mesh.peers)
    infra("submit", write_job(tmp_path, job_id="mine"))
    node.mesh.run_for(1)
    shown = infra("job", "--id", "mine", "--details").out
    assert [line for line in shown.splitlines() if line.startswith("  holder")] != []
    assert "took over" not in shown
    node.mesh.held_runs.clear()
    for worker, held in list(node.mesh.runs):
        node.mesh.finish(worker, held)
    node.mesh.run_for(60)
    shown = infra("job", "--id", "mine", "--details").out
    assert "  decided    success, by 2 of 3 holders: " in shown


def test_models_are_published_listed_and_shown(node: FakeNode, infra: Infra, tmp_path: Path) -> None:
    write_job(tmp_path)
    assert infra("models", "publish", tmp_path / "model", "--json").json["name"] == "features-v1"
    (listed,) = infra("models", "list", "--json").json
    assert listed["files"] == 2
    shown = infra("models", "show", "features-v1", "--json").json
    assert shown["content"]["model"]["command"] == ["python3", "features.py"]
    assert "features.py" in infra("models", "show", "features-v1").out
    assert "features-v1" in infra("models", "list").out


def test_peers_and_doctor(node: FakeNode, infra: Infra) -> None:
    listed = infra("peers", "--json").json
    assert (listed[0]["node_id"], listed[0]["relation"]) == (node.peer_id, "self")
    assert {peer["node_id"] for peer in listed} == set(node.mesh.peers)
    assert all(peer in infra("peers").out for peer in node.mesh.peers)
    checks = infra("doctor", "--json").json["checks"]
    assert {"docker", "sandbox", "gpu", "mesh"} <= {check["name"] for check in checks}


def test_doctor_works_without_a_node(infra: Infra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFRA_HOME", str(tmp_path))
    monkeypatch.delenv("INFRA_API", raising=False)
    checks = {check["name"]: check for check in infra("doctor", "--json").json["checks"]}
    assert checks["node"]["text"].startswith("no node runs here")
    assert "ports" in checks


# -- what goes wrong -------------------------------------------------------------------------------------------------


def with_yaml(text: str) -> Callable[[Path], list[object]]:
    def write(folder: Path) -> list[object]:
        write_job(folder)
        (folder / "job.yaml").write_text(text)
        return ["submit", folder / "job.yaml"]

    return write


def with_job(**changes: Any) -> Callable[[Path], list[object]]:
    return lambda folder: ["submit", write_job(folder, **changes)]


WRONG: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "no such file": (lambda folder: ["submit", folder / "gone.yaml"], "gone.yaml: no such file"),
    "a list": (with_yaml("- 1\n"), "job.yaml: expected a mapping of keys to values, got a list"),
    "a text": (with_yaml("hello\n"), "job.yaml: expected a mapping of keys to values, got 'hello'"),
    "empty": (with_yaml(""), "job.yaml: is empty, expected a mapping of keys to values"),
    "not YAML": (with_yaml("a: [1\n"), "job.yaml: not YAML"),
    "a bomb": (with_yaml("a: &a [1]\nb: *a\n"), "job.yaml: a: anchors and aliases are not allowed (line 1)"),
    "unknown key": (with_job(inputs={}), "job.json: 'inputs' is not a key of a job; did you mean 'input'?"),
    "unknown model": (with_job(model="who-v1"), "job.json: model: no model 'who-v1' is published in this mesh"),
    "missing image": (with_job(input={"image_url": "x.jpg"}), "job.json: input.image_url: no such file: 'x.jpg'"),
    "tile size": (with_job(multi_node={"tile_size": 0}), "job.json: multi_node.tile_size: must be at least 1, got 0"),
    "shards": (with_job(shard_count=33), "job.json: shard_count: 33 is more than max_shards, 32"),
    "negative": (with_job(shard_count=-1), "job.json: shard_count: must be at least 1, got -1"),
    "too large": (with_job(params={"text": "x" * 50_000}), "job.json: params: are too large"),
    "unknown job": (lambda folder: ["job", "--id", "dead-beef"], "no job 'dead-beef' is known in this mesh"),
    "a URL that is none": (lambda folder: ["jobs", "--api", "nonsense"], "--api: not a URL"),
    "an address that is none": (
        lambda folder: ["submit", write_job(folder), "--peer", "nonsense"],
        "--peer: 'nonsense'",
    ),
    "no option": (lambda folder: ["job"], "Missing option '--id'."),
    "no command": (lambda folder: ["sumbit"], "there is no command 'sumbit'"),
    "no details": (lambda folder: ["verify", folder / "gone.json"], "gone.json: No such file or directory"),
    "model directory": (lambda folder: ["models", "publish", folder], "model.yaml: no such file"),
    "nowhere to write": (lambda folder: ["output", "--job", "dead-beef", "-o", "/nowhere/o"], "no job 'dead-beef'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_one_sentence_and_exit_code_2(
    node: FakeNode, infra: Infra, tmp_path: Path, case: str
) -> None:
    arguments, sentence = WRONG[case]
    printed = infra(*arguments(tmp_path))
    assert printed.code == 2
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    assert sentence in line
    assert not [event for event in node.asked if isinstance(event, JobSubmitted)]


@pytest.mark.parametrize(
    "command",
    [["jobs"], ["peers"], ["job", "--id", "x"], ["cancel", "--id", "x"], ["models", "list"], ["submit", "{job}"]],
    ids=lambda command: command[0],
)
def test_no_node_is_exit_code_3(
    infra: Infra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("INFRA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("INFRA_API", raising=False)
    arguments = [str(write_job(tmp_path)) if part == "{job}" else part for part in command]
    for api, sentence in (([], "no node runs here"), (["--api", "http://t@127.0.0.1:9"], "no node answers at")):
        printed = infra(*arguments, *api)
        assert printed.code == 3
        assert printed.err.startswith(f"error: {sentence}")
        assert len(printed.err.splitlines()) == 1


def test_no_node_at_a_peers_address_is_exit_code_3(infra: Infra, tmp_path: Path) -> None:
    address = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWLd7bbHbmM9ceuH1bsoCFL16UXgQ7vTQVLr4vMTdLHd5x"
    printed = infra("submit", write_job(tmp_path), "--peer", address)
    assert (printed.code, len(printed.err.splitlines())) == (3, 1)
    assert printed.err.startswith("error: no node answers at /ip4/127.0.0.1/tcp/9")


def test_a_wrong_token_is_a_wrong_request(node: FakeNode, infra: Infra, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    url = os.environ["INFRA_API"].partition("@")[2]
    printed = infra("jobs", "--api", f"http://wrong@{url}")
    assert printed.code == 2
    assert "token" in printed.err


def test_the_help_loads_nothing_heavy() -> None:
    heavy = ["libp2p", "trio", "httpx", "starlette", "hypercorn", "pyvips", "docker", "rich", "msgspec", "yaml", "nacl"]
    program = f"""
import sys
from meshnode.cli.group import run
assert run(["--help"]) == 0
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert all(command in done.stdout for command in ("up", "demo", "devmesh", "submit", "verify", "doctor"))


@pytest.mark.parametrize(
    "command", ["submit", "jobs", "job", "output", "cancel", "peers", "models", "verify", "replay", "doctor"]
)
def test_every_command_has_help_that_loads_no_network(command: str) -> None:
    program = f"""
import sys
from meshnode.cli.group import run
assert run([{command!r}, "--help"]) == 0
print([name for name in ("libp2p", "trio", "httpx", "pyvips", "rich") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
