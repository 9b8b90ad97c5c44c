"""Reading a job file, JSON or YAML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.limits import SHARDS_MAX

from .document import read_document
from .errors import InvalidFile, join_place, render
from .fields import NAME, Fields
from .inputs import LocalFile, Reference, find_references
from .placement import read_placement, read_price
from .settings import (
    DAY_S,
    ISOLATIONS,
    Layer,
    read_multi_node,
    read_resources,
)
from .splitting import read_merge, read_strategy

_STAGE_KEYS = (
    "model",
    "params",
    "shard_count",
    "multi_node",
    "merge_strategy",
    "resources",
    "isolation",
    "timeout_s",
    "attempts",
    "max_lost",
    "allow_failures",
    "placement",
    "max_price",
)
_JOB_KEYS = (
    *_STAGE_KEYS,
    "job_id",
    "input",
    "stages",
    "job_graph",
    "deadline_s",
    "priority",
    "durability",
    "supersedes",
)
# Keys of the format that this version does not carry out yet, each with the values under which it asks for nothing.
_STAGE_LATER: dict[str, tuple[Any, ...]] = {
    "verify": (None, False),
    "persist": (None, False),
    "cache": (None, False),
    "stream": (None, False),
}
_JOB_LATER: dict[str, tuple[Any, ...]] = {**_STAGE_LATER}
_GRAPH_LATER: dict[str, tuple[Any, ...]] = {
    "name": (None,),
    "needs": (None, [], {}),
    "input_key": (None,),
    "output_key": (None,),
}


@dataclass(frozen=True, slots=True)
class JobFile:
    """One job as its submitter wrote it.

    model: a name, ``publisher/name`` or a CID; with ``model_dir`` it is the text of the path. input: as written,
    without ``split_strategy``. references: what its ``*_url`` values refer to. layer: what the job says about
    how its stage runs, to be laid over the model's by ``effective``. supersedes: an earlier job that ends for this one,
    by its full id, the start of it, or its alias.
    """

    file: str  # the name to use in messages
    job_id: str | None
    model: str
    model_dir: Path | None
    input: dict[str, Any]
    references: tuple[Reference, ...]
    layer: Layer
    deadline_s: float = 3600.0
    priority: int = 5  # 0 to 9
    durability: int = 1  # 1 or 2
    supersedes: str | None = None

    @property
    def local_files(self) -> tuple[LocalFile, ...]:
        return tuple(reference for reference in self.references if isinstance(reference, LocalFile))


def load_job(path: Path, *, allow_http: bool = False) -> JobFile:
    """Read the job file at ``path``, or raise InvalidFile. Paths in it are relative to its directory."""
    return parse_job(read_document(path), path.name, path.parent, allow_http=allow_http)


def parse_job(value: dict[str, Any], file: str, directory: Path, *, allow_http: bool = False) -> JobFile:
    """Check the JSON value of a job file; raise InvalidFile named ``file``."""
    found = Fields(value, file, "", "a job", _JOB_KEYS, _JOB_LATER)
    job_input = dict(found.mapping("input") or {})
    layer = _stage_layer(found, file, "")
    stage = _single_stage(found, file)
    if stage is None:
        found.required("model", "a name, publisher/name, a CID or a directory such as ./model")
        model, model_dir = _model(found, directory)
    else:
        if found.has("model"):
            raise found.error("model", "stands beside stages; name the model in the stage")
        stage_fields, place = stage
        stage_fields.required("model", "a name, publisher/name, a CID or a directory such as ./model")
        model, model_dir = _model(stage_fields, directory)
        layer = {**_stage_layer(stage_fields, file, place), **layer}
    _lift_split_strategy(job_input, layer, file)
    return JobFile(
        file=file,
        job_id=found.name("job_id"),
        model=model,
        model_dir=model_dir,
        input=job_input,
        references=find_references(job_input, directory=directory, file=file, allow_http=allow_http),
        layer=Layer(**layer),
        deadline_s=_or(found.number("deadline_s", 1, 30 * DAY_S), 3600.0),
        priority=_or(found.integer("priority", 0, 9), 5),
        durability=_or(found.integer("durability", 1, 2), 1),
        supersedes=found.text("supersedes"),
    )


def _stage_layer(found: Fields, file: str, place: str) -> dict[str, Any]:
    """Return what a job or a stage says, as arguments of ``Layer``, without those on which it is silent."""
    layer: dict[str, Any] = {}
    if found.has("multi_node"):
        layer |= read_multi_node(found.raw("multi_node"), file, join_place(place, "multi_node"))
    if found.has("resources"):
        layer |= read_resources(found.raw("resources"), file, join_place(place, "resources"))
    if found.has("placement"):
        layer["placement"] = read_placement(found.raw("placement"), file, join_place(place, "placement"))
    merge = read_merge(found, "merge_strategy")
    if merge is not None:
        if layer.get("merge") not in (None, merge):
            raise found.error("merge_strategy", f"is '{merge}' here but '{layer['merge']}' in multi_node")
        layer["merge"] = merge
    layer |= {
        "shard_count": found.integer("shard_count", 1, SHARDS_MAX),
        "isolation": found.choice("isolation", ISOLATIONS),
        "timeout_s": found.number("timeout_s", 0.001, 30 * DAY_S),
        "attempts": found.integer("attempts", 1, 100),
        "max_lost": found.integer("max_lost", 0, 1000),
        "allow_failures": found.integer("allow_failures", 0, SHARDS_MAX),
        "max_price": read_price(found, "max_price"),
        "params": found.mapping("params"),
    }
    return {name: value for name, value in layer.items() if value is not None}


def _single_stage(found: Fields, file: str) -> tuple[Fields, str] | None:
    """Return the one stage of a job that is written as a graph, and its place; None if it is not."""
    if found.has("job_graph") and found.has("stages"):
        raise found.error("stages", "stands beside job_graph; give one of the two")
    if found.has("job_graph"):
        graph = Fields(found.raw("job_graph"), file, "job_graph", "job_graph", ("stages",))
        graph.required("stages", "the list of stages")
        stages, place = graph.items("stages"), "job_graph.stages"
    elif found.has("stages"):
        stages, place = found.items("stages"), "stages"
    else:
        return None
    if not stages:
        raise InvalidFile(file, place, "expected a list of stages, got an empty one")
    if len(stages) > 1:
        raise InvalidFile(file, place, f"a graph of {len(stages)} stages is not supported by this version")
    place = join_place(place, 0)
    return Fields(stages[0], file, place, "a stage", _STAGE_KEYS, {**_STAGE_LATER, **_GRAPH_LATER}), place


def _model(found: Fields, directory: Path) -> tuple[str, Path | None]:
    model = found.text("model")
    assert model is not None
    if model.startswith((".", "/")):
        path = directory / model
        try:
            is_directory = path.is_dir()
        except (OSError, ValueError):
            is_directory = False
        if not is_directory:
            raise found.error("model", f"no such directory: {render(model)}")
        return model, path
    parts = model.split("/")
    if len(parts) > 2 or not all(NAME.fullmatch(part) for part in parts):
        raise found.error(
            "model", f"{render(model)} is not a name, publisher/name, a CID or a directory such as ./model"
        )
    return model, None


def _lift_split_strategy(job_input: dict[str, Any], layer: dict[str, Any], file: str) -> None:
    """Move ``split_strategy`` from the input, where it is written, to the settings, where it belongs."""
    strategy = job_input.pop("split_strategy", None)
    if strategy is None:
        return
    lifted = read_strategy(strategy, file, "input.split_strategy")
    for name, value in lifted.items():
        if layer.get(name, value) != value:
            raise InvalidFile(file, "input.split_strategy", f"says {name} {value}, but multi_node says {layer[name]}")
    layer |= lifted


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
