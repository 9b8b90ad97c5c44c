import os

import pytest

from meshnode.jobs import bundle as bundle_module
from meshnode.jobs.bundle import read_bundle
from meshnode.jobs.errors import InvalidFile


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "model"
    (directory / "lib").mkdir(parents=True)
    (directory / "model.yaml").write_text("model_id: m\ncommand: [sh, run.sh]\n")
    (directory / "run.sh").write_text("#!/bin/sh\n")
    (directory / "run.sh").chmod(0o700)
    (directory / "lib" / "b.py").write_text("b")
    (directory / "lib" / "b.py").chmod(0o660)
    return directory


def refusal(directory):
    with pytest.raises(InvalidFile) as caught:
        read_bundle(directory)
    return str(caught.value)


def test_the_manifest_lists_every_file_sorted_with_one_of_two_modes(model):
    bundle = read_bundle(model)
    assert [file.source for file in bundle.files] == [model / name for name in ("lib/b.py", "model.yaml", "run.sh")]
    assert bundle.manifest({"lib/b.py": "c1", "model.yaml": "c2", "run.sh": "c3"}) == {
        "model": {"model_id": "m", "command": ["sh", "run.sh"]},
        "files": [
            {"path": "lib/b.py", "size": 1, "mode": 0o644, "cid": "c1"},
            {"path": "model.yaml", "size": 34, "mode": 0o644, "cid": "c2"},
            {"path": "run.sh", "size": 10, "mode": 0o755, "cid": "c3"},
        ],
    }


def test_caches_and_version_control_are_left_out(model):
    for name in ("__pycache__", ".git", "lib/__pycache__"):
        (model / name).mkdir()
        (model / name / "x").touch()
    assert [file.path for file in read_bundle(model).files] == ["lib/b.py", "model.yaml", "run.sh"]


def test_a_link_inside_counts_as_the_file_it_leads_to(model):
    (model / "again.py").symlink_to("lib/b.py")
    (again, *_) = read_bundle(model).files
    assert (again.path, again.size, again.source) == ("again.py", 1, model / "lib" / "b.py")


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("/etc/passwd", "lib/link: is a symbolic link that leaves the model's directory"),
        ("../../model.yaml", "lib/link: is a symbolic link to nothing"),
        ("../..", "lib/link: is a symbolic link that leaves the model's directory"),
        ("link", "lib/link: is a symbolic link to nothing"),
        ("../lib", "lib/link: is a symbolic link to a directory; only links to files can be published"),
    ],
)
def test_links_that_cannot_be_published(model, target, sentence):
    (model / "lib" / "link").symlink_to(target)
    assert refusal(model) == sentence


def test_a_pipe_is_refused(model):
    os.mkfifo(model / "pipe")
    assert refusal(model) == "pipe: is not a regular file"


def test_number_and_size_are_bounded(model, monkeypatch):
    monkeypatch.setattr(bundle_module, "FILES_MAX", 2)
    assert refusal(model).endswith("model: holds more than 2 files")
    monkeypatch.undo()
    monkeypatch.setattr(bundle_module, "BYTES_MAX", 44)
    assert refusal(model).endswith("model: holds more than 44 bytes")


def test_a_directory_that_is_no_model_is_said(tmp_path):
    assert refusal(tmp_path).endswith("model.yaml: no such file")
