"""A split and a merge as plug-ins: ``csv.groups`` makes a shard of each value of a column, ``csv.table`` joins tables.

``pip install ./examples/csv_plugin`` on the nodes that shall run such jobs; they tell the others that they have it.
"""

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any


def groups(task: dict[str, Any], input_dir: Path, output_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield ``{"group", "rows_url": file}`` for each value of the column ``params.by`` of ``table_url``."""
    by = task["params"]["by"]
    files: dict[str, str] = {}
    with ExitStack() as stack, (input_dir / task["input"]["table_url"]["path"]).open(newline="") as table:
        reader = csv.DictReader(table)
        writers: dict[str, Any] = {}
        for row in reader:
            if row[by] not in writers:
                files[row[by]] = f"{len(files)}.csv"
                file = stack.enter_context((output_dir / files[row[by]]).open("w", newline=""))
                writers[row[by]] = csv.DictWriter(file, reader.fieldnames or ())
                writers[row[by]].writeheader()
            writers[row[by]].writerow(row)
    for value in sorted(files):
        yield {"group": value, "rows_url": {"path": files[value]}}


def table(outputs: Iterator[Any], task: dict[str, Any], output_dir: Path) -> None:
    """Write output.csv: the outputs, objects with the same keys, as rows."""
    rows = [output.value("csv.table") for output in outputs if not output.failed]
    with (output_dir / "output.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
