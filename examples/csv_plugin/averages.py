"""The average of one group of a table."""

import csv
import json
import os
from pathlib import Path

INPUT = Path(os.environ["MESH_INPUT"])
task = json.loads((INPUT / "input.json").read_bytes())
with (INPUT / task["rows_url"]["path"]).open(newline="") as file:
    values = [float(row[task["of"]]) for row in csv.DictReader(file)]
print(json.dumps({task["by"]: task["group"], "count": len(values), "average": sum(values) / len(values)}))
