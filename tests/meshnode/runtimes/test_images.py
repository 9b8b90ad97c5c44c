"""Images built without a registry."""

import hashlib
import json
import sys
import tarfile
from pathlib import Path

import docker
import pytest

from meshnode.images import ImageNotBuilt, build_python_image, build_tool_image, load_image


def test_the_same_files_give_the_same_image_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identities = set()
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        identities.add(build_python_image("t:t", packages=["pyyaml"], out=tmp_path / f"{seed}.tar"))
    assert len(identities) == 1
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_the_image_id_is_the_digest_of_a_configuration_that_names_the_layer(tmp_path: Path) -> None:
    (extra := tmp_path / "extra").write_text("hello")
    identity = build_python_image("t:t", packages=["yaml"], out=tmp_path / "i.tar", files={"/mesh/extra": extra})
    with tarfile.open(tmp_path / "i.tar") as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))
        configuration = archive.extractfile(manifest["Config"]).read()
        assert identity == "sha256:" + hashlib.sha256(configuration).hexdigest()
        layer = archive.extractfile(manifest["Layers"][0])
        digest = hashlib.file_digest(layer, "sha256").hexdigest()
        assert json.loads(configuration)["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
        layer.seek(0)
        with tarfile.open(fileobj=layer) as files:
            members = {member.name: member for member in files}
            assert files.extractfile("mesh/extra").read() == b"hello"
    assert {member.mtime for member in members.values()} == {0}
    assert any(name.endswith("site-packages/yaml/__init__.py") for name in members)
    assert any(name.endswith(f"yaml/__pycache__/__init__.{sys.implementation.cache_tag}.pyc") for name in members)


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageNotBuilt, match="no_such_package is not installed"):
        build_python_image("t:t", packages=["no_such_package"], out=tmp_path / "i.tar")


@pytest.mark.docker
def test_the_engine_agrees_on_the_id_and_packages_import(engine: None, tmp_path: Path) -> None:
    identity = build_python_image("meshnode-test:pillow", packages=["PIL", "numpy"], out=tmp_path / "i.tar")
    assert load_image(tmp_path / "i.tar") == identity
    program = "import numpy, PIL.Image, ssl, sqlite3, asyncio; print(PIL.Image.fromarray(numpy.eye(3)).size)"
    engine_api = docker.from_env()
    try:
        command = ["python3", "-c", program]
        output = engine_api.containers.run(identity, command, remove=True, network_mode="none")
        assert output == b"(3, 3)\n"
    finally:
        engine_api.images.remove(identity, force=True)


@pytest.mark.docker
def test_what_is_no_image_is_not_loaded(engine: None, tmp_path: Path) -> None:
    (tmp_path / "junk.tar").write_bytes(b"junk" * 1000)
    with pytest.raises(ImageNotBuilt, match="cannot be loaded"):
        load_image(tmp_path / "junk.tar")


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageNotBuilt, match="/no/such/tool"):
        build_tool_image("t:t", tools=["/no/such/tool"], out=tmp_path / "i.tar")
