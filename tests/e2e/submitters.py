"""Submitters that do not give up: they hand in the same signed job, and ask, until some node answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from meshnode.client.client import Client
from meshnode.client.errors import ClientError
from meshnode.client.results import ENDED, Accepted, Job
from meshnode.devmesh import DevNode, wait_for
from protocol.batches import task_count
from tests.e2e.conftest import infra, squares

T = TypeVar("T")

ACCEPTED_WITHIN_S = 180.0
ENDED_WITHIN_S = 240.0
ANSWERED_WITHIN_S = 60.0


class Submitter:
    """One submitter with a key and an outbox of its own, who asks a node drawn anew each time."""

    def __init__(self, nodes: Sequence[DevNode], home: Path, rng: Random) -> None:
        self._nodes = nodes
        self._home = home
        self._rng = rng
        self.tries = 0
        """How often it handed in its job."""

    def hand_in(self, path: Path) -> Accepted:
        """Hand in the job file until it is accepted; once it is signed, what was signed."""

        def once(client: Client) -> Accepted:
            signed = next((self._home / "outbox").glob("*.signed"), None)
            self.tries += 1
            return client.submit(signed or path)

        return self._ask(once, ACCEPTED_WITHIN_S)

    def ended(self, job: str) -> Job:
        """The job once a node says that it has ended."""
        return self._ask(lambda client: client.job(job), ENDED_WITHIN_S, lambda found: found.ended)

    def details(self, job: str) -> dict[str, Any]:
        """The details once the node that is asked has heard of the end: one that is cut off may not have."""
        return self._ask(lambda client: client.details(job), ANSWERED_WITHIN_S, lambda found: found["status"] in ENDED)

    def output(self, job: str) -> bytes:
        return self._ask(lambda client: b"".join(client.output(job)[1]), ANSWERED_WITHIN_S)

    def _ask(
        self, question: Callable[[Client], T], within_s: float, enough: Callable[[T], bool] = lambda answer: True
    ) -> T:
        answers: list[T] = []
        last: list[object] = ["nothing was heard"]

        def answered() -> bool:
            node = self._rng.choice(self._nodes)
            try:
                with node.client(self._home) as client:
                    last[0] = answer = question(client)
            except ClientError as error:
                last[0] = f"{node.home.name}: {error}"
                return False
            if enough(answer):
                answers.append(answer)
            return bool(answers)

        assert wait_for(answered, within_s), last[0]
        return answers[0]


def check_result(details: dict[str, Any], output: bytes, shards: int, folder: Path) -> None:
    """The job is a success, its output right, and all that is said about it verifies."""
    assert (details["status"], details["succeeded"], details["total_shards"]) == ("success", shards, shards)
    assert json.loads(output) == squares(shards)
    path = folder / f"{details['full_id']}.json"
    path.write_text(json.dumps(details))
    verified = infra("verify", path, "--json").json()
    assert verified["ok"], verified
    assert verified["receipts"] == task_count(shards) + 2


def wasted_in(details: dict[str, Any]) -> int:
    """Executions beyond the one for each task that it takes, as far as they began."""
    begun = [[tried for tried in task["tries"] if tried["outcome"] != "declined"] for task in details["tasks"]]
    return sum(max(0, len(tries) - 1) for tries in begun)
