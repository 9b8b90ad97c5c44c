"""Serve a model: load it once, answer task after task.

    from meshmodel import serve

    model = load()

    def handler(input: dict):
        return {"label": model(input["text"])}

    serve(handler)

For models, and put on their path by the sandbox: one file, nothing but the standard library. With `serve: warm` in
model.yaml the process stays and `serve` answers until it is no longer wanted. Otherwise, or outside the mesh, it
answers one task: `$MESH_INPUT/input.json` in, `$MESH_OUTPUT/output.json` out.

What goes over the inherited socket `$MESH_SOCKET` are lines of JSON. First this side says `{"ready": 1}`; then each
`{"id": n, "input": {…}, "env": {…}}` is answered by `{"id": n, "output": …}` or `{"id": n, "error": "…"}`. `env` holds
the variables of the environment that are other than before.
"""

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

Handler = Callable[[dict[str, Any]], Any]

SOCKET = "MESH_SOCKET"
ANSWER_BYTES_MAX = 16 << 20
ERROR_CHARS_MAX = 2000


def serve(handler: Handler) -> None:
    """Answer every task with `handler(input)`, a JSON value. What it raises is that task's failure; the next is served.

    Files of a task are as for any other model: `path` in the input is below `$MESH_INPUT`, and what the handler writes
    to `$MESH_OUTPUT` and names by `path` in its answer is kept. Both folders are empty again for the next task.
    """
    descriptor = os.environ.pop(SOCKET, None)
    if descriptor is None:
        _serve_one(handler)
        return
    os.set_inheritable(int(descriptor), False)  # what the model starts must not keep the conversation open
    with socket.socket(fileno=int(descriptor)) as channel, channel.makefile("rb") as lines:
        channel.sendall(b'{"ready": 1}\n')
        for line in lines:
            channel.sendall(_answer(handler, json.loads(line)))


def _answer(handler: Handler, task: dict[str, Any]) -> bytes:
    os.environ.update(task.get("env", {}))
    try:
        answer = json.dumps({"id": task["id"], "output": handler(task["input"])}, allow_nan=False)
        if len(answer) >= ANSWER_BYTES_MAX:
            raise ValueError(f"the answer has {len(answer)} bytes of at most {ANSWER_BYTES_MAX}; write it to a file")
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"[:ERROR_CHARS_MAX]
        answer = json.dumps({"id": task["id"], "error": text})
    sys.stdout.flush()
    return answer.encode() + b"\n"


def _serve_one(handler: Handler) -> None:
    with open(os.path.join(os.environ["MESH_INPUT"], "input.json"), encoding="utf-8") as file:
        output = handler(json.load(file))
    with open(os.path.join(os.environ["MESH_OUTPUT"], "output.json"), "w", encoding="utf-8") as file:
        json.dump(output, file)
