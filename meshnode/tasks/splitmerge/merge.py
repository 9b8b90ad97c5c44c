"""The merge program: the outputs of a job's shards in, the job's output out.

input.json: ``{"merge": {"strategy", …}, "shards": [{"index", "status", "output": {"path", "cid", "size",
"media_type"}}, ...]}``, where a failed shard has no ``output``. An entry with a ``count`` stands for so many shards
from ``index`` on, and its output is the list of theirs. The files that outputs link to lie at ``files/<cid>``. What is
written is output.json with the merged value, or a file ``output.<ending>`` that is the output byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .choosing import best, vote
from .contract import BadInput, JsonObject, describe, write_output
from .joining import concat, concat_json, links
from .parts import Parts
from .plugins import find_plugin, is_plugin

Strategy = Callable[[Parts, JsonObject, Path], None]


def merge(task: JsonObject, input_dir: Path, output_dir: Path) -> None:
    """Write the merged output into ``output_dir``; raise BadInput if the shards' outputs cannot be merged."""
    settings = task.get("merge")
    if not isinstance(settings, dict):
        raise BadInput(f"merge: expected an object, got {describe(settings)}")
    strategy = settings.get("strategy") or "none"
    parts = Parts(task, input_dir)
    if is_plugin(strategy):
        merged = find_plugin("merges", strategy)(iter(parts), task, output_dir)
        if merged is not None or not any(output_dir.glob("output.*")):
            write_output(output_dir, merged)
        return
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise BadInput(f"merge.strategy: {describe(strategy)} is not one of {', '.join(STRATEGIES)}")
    STRATEGIES[strategy](parts, settings, output_dir)


def _stitch(parts: Parts, settings: JsonObject, output_dir: Path) -> None:
    from .mosaic import stitch  # here, as loading numpy and libvips takes longer than most merges

    stitch(parts, output_dir)


def _sum(parts: Parts, settings: JsonObject, output_dir: Path) -> None:
    from .combining import total

    total(parts, output_dir)


def _mean(parts: Parts, settings: JsonObject, output_dir: Path) -> None:
    from .combining import mean

    mean(parts, output_dir)


STRATEGIES: dict[str, Strategy] = {
    "none": lambda parts, settings, output_dir: links(parts, output_dir),
    "concat-json": lambda parts, settings, output_dir: concat_json(parts, output_dir),
    "concat": lambda parts, settings, output_dir: concat(parts, output_dir),
    "stitch": _stitch,
    "sum": _sum,
    "mean": _mean,
    "vote": vote,
    "best": best,
}
