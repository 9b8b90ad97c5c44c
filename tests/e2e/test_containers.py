"""What containers do on a mesh of real nodes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from meshnode.devmesh import DevMesh
from meshnode.images import build_python_image, load_image
from tests.e2e.conftest import details_of, ended, output_of
from tests.examples.conftest import EXAMPLES

pytestmark = pytest.mark.docker


@pytest.fixture
def image(engine: None, tmp_path: Path) -> Iterator[str]:
    """A Python alone."""
    archive = tmp_path / "image.tar"
    build_python_image("meshnode-test:python", packages=[], out=archive)
    identity = load_image(archive)
    archive.unlink()
    yield identity
    client = docker.from_env()
    client.images.remove(identity, force=True)
    client.close()


def test_an_image_splits_and_merges_itself(own_mesh: Callable[..., DevMesh], image: str, tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLES / "wordcount", tmp_path / "wordcount")
    with (folder / "model.yaml").open("a") as model:
        model.write(f"image: {image}\n")
    text = "# One\nto be or not to be\n# Two\nthat is the question\n# Three\nto die to sleep\n"
    (tmp_path / "text.md").write_text(text)
    job = folder / "job.yaml"
    job.write_text(f"model: .\ninput: {{text_url: {tmp_path / 'text.md'}}}\nparams: {{top: 2}}\n")

    mesh = own_mesh(2, runtime="docker")
    with mesh.nodes[0].client() as client:
        name = client.submit(job).full_id
    done = ended(mesh.nodes[0], name)
    assert (done.status, done.succeeded, done.total_shards) == ("success", 3, 3), done
    assert json.loads(output_of(mesh.nodes[1], name)) == {"to": 4, "be": 2}
    receipts = details_of(mesh.nodes[0], name)["receipts"]
    assert {receipt["image"] for receipt in receipts} == {image}
    assert len(receipts) >= 5  # one split, three shards, one merge
