"""``infra demo``: a local mesh doing the main job, and the proof that it did it right."""

from __future__ import annotations

import hashlib
import json
import runpy
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshnode.cli.common import print_json, print_table, shows_progress
from meshnode.cli.group import DONE, JOB_FAILED

if TYPE_CHECKING:
    from meshnode.client.results import Job
    from meshnode.devmesh import DevMesh, DevNode

SHARDS = 16
MODEL = "features-v1"
IMAGE_NAME = "meshnode-features:demo"
IMAGE_PACKAGES = ("numpy", "scipy", "pillow")
_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

Say = Callable[[str], None]


@click.command()
@click.option("--runtime", type=click.Choice(["sandbox", "docker"]), default="sandbox", show_default=True)
@click.option("--peers", type=click.IntRange(2, 16), default=4, show_default=True, help="How many nodes.")
@click.option("--keep", is_flag=True, help="Keep the mesh's folder: homes, logs, blobs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def demo(runtime: str, peers: int, keep: bool, as_json: bool) -> int:
    """Start a mesh, find the stars and galaxies in a photograph in 16 pieces, and check all that came of it.

    The exit code is 0 only if everything holds.
    """
    from meshnode.client.errors import ClientError
    from meshnode.devmesh import DevMesh, DevMeshError
    from meshnode.images import ImageNotBuilt

    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="infra-demo-"))
    try:
        with _progress(shown=shows_progress(as_json)) as say:
            model, photograph = _prepare(folder, runtime, say)
            say(f"starting {peers} nodes")
            with DevMesh.run(folder / "mesh", peers, mesh="demo", runtime=runtime) as mesh:
                found = _main_job(mesh, model, photograph, say)
        found.seconds = round(time.monotonic() - began, 1)
    except (ClientError, DevMeshError, ImageNotBuilt) as error:
        raise click.ClickException(str(error)) from None
    finally:
        if keep:
            click.echo(f"kept: {folder}", err=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print_json(found.as_json()) if as_json else _show(found)
    return DONE if found.holds else JOB_FAILED


@dataclass
class Found:
    """What came of the job, and what was checked."""

    peers: int
    job: Job
    per_node: dict[str, dict[str, Any]]
    features: int
    features_unsplit: int
    submitted_to: str
    fetched_from: str
    checks: list[tuple[str, bool]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return all(held for _, held in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.holds,
            "peers": self.peers,
            "job_id": self.job.job_id,
            "total_shards": self.job.total_shards,
            "succeeded": self.job.succeeded,
            "failed": self.job.failed,
            "merge_status": self.job.merge_status,
            "output_hash": self.job.output_hash,
            "per_node": self.per_node,
            "features": self.features,
            "features_unsplit": self.features_unsplit,
            "checks": [{"check": sentence, "holds": held} for sentence, held in self.checks],
            "seconds": self.seconds,
        }


def _prepare(folder: Path, runtime: str, say: Say) -> tuple[Path, Path]:
    """A copy of the example with its photograph, and for containers with the image that it runs in."""
    if not (_EXAMPLES / "features").is_dir():
        raise click.ClickException(f"{_EXAMPLES}: the example is not here; the demo runs from a checkout")
    try:
        bundled = runpy.run_path(str(_EXAMPLES / "photograph.py"))["bundled_photograph"]()
    except SystemExit as error:
        raise click.ClickException(str(error)) from None
    photograph = Path(shutil.copy(bundled, folder / bundled.name))
    model = Path(shutil.copytree(_EXAMPLES / "features", folder / "features"))
    if runtime == "docker":
        from meshnode.images import build_python_image, load_image
        from meshnode.runtimes.docker import engine_version

        if engine_version() is None:
            raise click.ClickException("no Docker engine answers here: start one, or leave out --runtime docker")

        say("building the image, without a registry")
        build_python_image(IMAGE_NAME, packages=IMAGE_PACKAGES, out=folder / "image.tar")
        say("loading the image into the engine")
        image = load_image(folder / "image.tar")
        (folder / "image.tar").unlink()
        with (model / "model.yaml").open("a") as file:
            file.write(f"image: {image}\n")
    return model, photograph


def _main_job(mesh: DevMesh, model: Path, photograph: Path, say: Say) -> Found:
    """Publish to one node, submit to another, fetch from a third; then the same unsplit."""
    publisher, entry, exit_ = mesh.nodes[-1], mesh.nodes[0], mesh.nodes[1 % len(mesh.nodes)]
    say("publishing the model")
    with publisher.client() as client:
        client.publish(model)
    whole = {"model": MODEL, "input": {"image_url": photograph.name}}
    job = _run(entry, photograph.parent / "split.json", {**whole, "shard_count": SHARDS}, say, "the job in 16 shards")
    with exit_.client() as client:
        details = client.details(job.full_id)
    output = _output_of(exit_, job)
    unsplit_job = {**whole, "multi_node": {"enabled": False}}
    unsplit = _run(entry, photograph.parent / "unsplit.json", unsplit_job, say, "the same, unsplit")
    features, features_unsplit = _features(output), _features(_output_of(exit_, unsplit))
    found = Found(
        peers=len(mesh.nodes),
        job=job,
        per_node=_work_of(mesh, details),
        features=len(features),
        features_unsplit=len(features_unsplit),
        submitted_to=entry.node_id,
        fetched_from=exit_.node_id,
    )
    found.checks = _check(found, details, output, same=bool(features) and features == features_unsplit)
    return found


def _run(node: DevNode, path: Path, job: dict[str, Any], say: Say, what: str) -> Job:
    """Submit a job to ``node`` and wait for its end."""
    path.write_text(json.dumps(job))
    with node.client() as client:
        say(f"submitting {what}")
        accepted = client.submit(path)
        last = None
        for last in client.watch(accepted.full_id):
            say(f"{what}: {last.succeeded} of {last.total_shards or '?'} done")
        assert last is not None
    if last.status != "success":
        raise click.ClickException(f"{what} ended as {last.status}: {last.error or last.waiting}")
    return last


def _output_of(node: DevNode, job: Job) -> bytes:
    with node.client() as client:
        return b"".join(client.output(job.full_id)[1])


def _features(output: bytes) -> list[tuple[float, float, float, float]]:
    """Position, size and strength of every feature, in one order: shards list theirs tile by tile."""
    return sorted((one["y"], one["x"], one["sigma"], one["strength"]) for one in json.loads(output))


def _work_of(mesh: DevMesh, details: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By node: the shards it ran, whether it split or merged, and how long it computed."""
    work = {node.node_id: {"shards": 0, "split": 0, "merge": 0, "seconds": 0.0} for node in mesh.nodes}
    for receipt in details["receipts"]:
        done = work[receipt["node_id"]]
        role = "shards" if receipt["shard_index"] is not None else receipt["job_id"].rpartition(".")[2]
        done[role] += 1
        done["seconds"] = round(done["seconds"] + receipt["run_ms"] / 1000, 2)
    return work


def _check(found: Found, details: dict[str, Any], output: bytes, *, same: bool) -> list[tuple[str, bool]]:
    from protocol.identity import Ed25519Verifier
    from protocol.verify import verify

    job = found.job
    workers = sum(1 for done in found.per_node.values() if done["shards"])
    wanted = min(3, found.peers)
    problems = verify(details, Ed25519Verifier())
    receipts = len(details["receipts"])
    wrong = f": {problems[0].place}: {problems[0].sentence}" if problems else ""
    return [
        (
            f"{job.succeeded} of {job.total_shards} shards succeeded, merge {job.merge_status}",
            job.succeeded == job.total_shards == SHARDS and job.merge_status == "success",
        ),
        (f"{workers} of {found.peers} peers ran shards", workers >= wanted),
        (f"{receipts} signed receipts verify{wrong}", not problems and receipts >= SHARDS + 2),
        (
            "the output, fetched from another peer than the job was given to, has the hash that was signed",
            f"0x{hashlib.sha256(output).hexdigest()}" == job.output_hash and found.fetched_from != found.submitted_to,
        ),
        (
            f"{found.features} features, {found.features_unsplit} in one unsplit run: "
            f"{'the same' if same else 'NOT the same'}, to the last bit",
            same,
        ),
    ]


def _show(found: Found) -> None:
    rows = [
        (node_id, done["shards"], ", ".join(role for role in ("split", "merge") if done[role]) or "-", done["seconds"])
        for node_id, done in found.per_node.items()
    ]
    click.echo(f"job {found.job.job_id}: output {found.job.output_hash}")
    print_table(("node", "shards", "also", "seconds"), rows)
    for sentence, held in found.checks:
        click.echo(f"  {'ok ' if held else 'BAD'} {sentence}")
    click.echo(f"{'everything holds' if found.holds else 'SOMETHING DOES NOT HOLD'}, in {found.seconds} s")


@contextmanager
def _progress(*, shown: bool) -> Iterator[Say]:
    """What is being done, with the time, on stderr."""
    if not shown:
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("preparing")
        yield lambda text: bar.update(task, description=text)
