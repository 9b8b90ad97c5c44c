"""A task's folders, and a way to run the built-in programs in them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshnode.tasks.splitmerge.contract import BadInput


class TaskFolders:
    """MESH_INPUT and MESH_OUTPUT of one task."""

    def __init__(self, root: Path) -> None:
        self.input, self.output = root / "input", root / "output"
        self.input.mkdir()
        self.output.mkdir()

    def add(self, name: str, data: bytes) -> dict[str, Any]:
        """Put a file beside input.json and return the value that stands for it there."""
        path = self.input / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return {"path": name, "cid": f"cid-of-{name}", "size": len(data), "media_type": "application/octet-stream"}

    def run(self, program: Callable[[Any, Path, Path], None], task: Any) -> Any:
        """Run a program in this process and return its output."""
        program(task, self.input, self.output)
        return json.loads((self.output / "output.json").read_bytes())

    def refusal(self, program: Callable[[Any, Path, Path], None], task: Any) -> str:
        """Run a program that must refuse its input and return the sentence."""
        with pytest.raises(BadInput) as caught:
            program(task, self.input, self.output)
        return str(caught.value)

    def attempt(self, program: Callable[[Any, Path, Path], None], task: Any) -> None:
        """Run a program with any input: it does its work, or refuses it in one line."""
        said = ""
        try:
            program(task, self.input, self.output)
        except BadInput as refused:
            said = str(refused)
        assert "\n" not in said


@pytest.fixture(scope="session")
def make_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], TaskFolders]:
    """Make new folders at each call, for tests that run many examples."""
    return lambda: TaskFolders(tmp_path_factory.mktemp("task"))


@pytest.fixture
def folders(make_folders: Callable[[], TaskFolders]) -> TaskFolders:
    return make_folders()
