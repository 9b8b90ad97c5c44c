"""Reading model.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .document import read_document
from .fields import Fields
from .settings import DAY_S, Layer, read_multi_node, read_resources

FILE_NAME = "model.yaml"

_KEYS = ("model_id", "image", "command", "resources", "serve", "timeout_s", "params", "multi_node")
_LATER: dict[str, tuple[Any, ...]] = {"chained_models": (None, [])}
_IMAGE = re.compile(r"(?:[a-z0-9][A-Za-z0-9._/:-]*@)?sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model.yaml. ``value`` is the whole file as a JSON value, which is what gets published."""

    model_id: str
    image: str | None  # name@sha256:…, or sha256:… of an image on the node; None: the node's own Python
    command: tuple[str, ...]  # run in the model's directory
    warm: bool  # loaded once, answers many: `serve: warm`
    layer: Layer
    value: dict[str, Any]


def load_model(directory: Path) -> ModelFile:
    """Read the model.yaml in ``directory``, or raise InvalidFile."""
    path = directory / FILE_NAME
    return parse_model(read_document(path), path.name)


def parse_model(value: dict[str, Any], file: str = FILE_NAME) -> ModelFile:
    """Check the JSON value of a model.yaml, which may come from a stranger; raise InvalidFile named ``file``."""
    found = Fields(value, file, "", "a model", _KEYS, _LATER)
    found.required("model_id", "the name under which the model is published")
    model_id = found.name("model_id")
    assert model_id is not None
    return ModelFile(
        model_id=model_id,
        image=_image(found),
        command=_command(found),
        warm=_warm(found),
        layer=Layer(
            timeout_s=found.number("timeout_s", 0.001, 30 * DAY_S),
            params=found.mapping("params") or {},
            **(read_resources(found.raw("resources"), file, "resources") if found.has("resources") else {}),
            **(read_multi_node(found.raw("multi_node"), file, "multi_node") if found.has("multi_node") else {}),
        ),
        value=value,
    )


def _image(found: Fields) -> str | None:
    image = found.text("image")
    if image is None:
        return None
    if image.startswith("mesh:"):
        raise found.error("image", "an image from the mesh ('mesh:…') is not supported by this version")
    if not _IMAGE.fullmatch(image):
        raise found.error(
            "image", f"{image[:80]!r} does not say which bytes to run; write it as name@sha256:<64 hex digits>"
        )
    return image


def _warm(found: Fields) -> bool:
    if isinstance(found.raw("serve"), dict):
        raise found.error("serve", "a model that is asked over HTTP is not supported by this version")
    warm = found.choice("serve", ("once", "warm")) == "warm"
    if warm and found.has("image"):
        raise found.error("serve", "'warm' is for models without an image: only the sandbox keeps them loaded")
    return warm


def _command(found: Fields) -> tuple[str, ...]:
    found.required("command", "the program and its arguments, as a list")
    command = found.items("command")
    if not command or len(command) > 256:
        raise found.error("command", "expected the program and its arguments, from 1 to 256 of them")
    for index, part in enumerate(command):
        if not isinstance(part, str) or "\0" in part or (index == 0 and not part):
            raise found.error(f"command[{index}]", "expected a text; quote numbers and the like")
    return tuple(command)
