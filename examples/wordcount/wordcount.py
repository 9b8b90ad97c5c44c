"""Map and reduce by the model itself: MESH_ROLE says whether it is to split, to run one shard, or to merge.

It splits a document at its headings, which no built-in split knows of, counts the words of each section, and adds up
counts of which no two sections have the same words, which the built-in ``sum`` would refuse.
"""

import json
import os
import re
from collections import Counter
from pathlib import Path

INPUT, OUTPUT = Path(os.environ["MESH_INPUT"]), Path(os.environ["MESH_OUTPUT"])
task = json.loads((INPUT / "input.json").read_bytes())

match os.environ["MESH_ROLE"]:
    case "split":  # task: {"input": the job's input, "params", "split", "shard_count", "max_shards"}
        text = (INPUT / task["input"]["text_url"]["path"]).read_text()
        sections = [section for section in re.split(r"(?m)^#+ ", text) if section.strip()]
        for index, section in enumerate(sections):
            (OUTPUT / f"{index}.txt").write_text(section)
        result = {"shards": [{"section": {"path": f"{index}.txt"}} for index in range(len(sections))]}
    case "shard":  # task: one of those inputs, and the params
        text = (INPUT / task["section"]["path"]).read_text()
        result = Counter(re.findall(r"[a-z]+", text.lower()))
    case "merge":  # task: {"shards": [{"index", "status", "output": file}, …], "params", "merge"}
        total: Counter[str] = Counter()
        for shard in task["shards"]:
            if shard["status"] == "success":
                total += Counter(json.loads((INPUT / shard["output"]["path"]).read_bytes()))
        result = dict(sorted(total.items(), key=lambda item: (-item[1], item[0]))[: task["params"]["top"]])

(OUTPUT / "output.json").write_text(json.dumps(result))
