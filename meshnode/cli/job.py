"""``infra job``: one job, in short or with everything that can be verified."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from meshnode.cli.common import a_client, asks_a_node, plain, print_json, print_table
from meshnode.cli.following import follow, line_of

if TYPE_CHECKING:
    from meshnode.client.results import Job


@click.command()
@click.option("--id", "job_id", required=True, metavar="ID", help="Its id, the start of it, or its alias.")
@click.option("--details", is_flag=True, help="Every task, try, receipt and award; with --json what `verify` takes.")
@click.option("--watch", is_flag=True, help="Print each change until the job has ended.")
@asks_a_node
def job(job_id: str, details: bool, watch: bool, api: str | None, as_json: bool) -> None:
    """How is a job doing, and if it is not, why?"""
    with a_client(api) as client:
        last = follow(client.watch(job_id), as_json=as_json, each=True) if watch else None
        if details:
            found = client.details(last.full_id if last else job_id)
            if as_json:
                print_json(found)
            else:
                _print_details(found)
        elif last is None:
            last = client.job(job_id)
            if as_json:
                print_json(last.as_json())
            else:
                _print_job(last)


def _print_job(job: Job) -> None:
    click.echo(line_of(job))
    for name, value in (
        ("full id", job.full_id),
        ("model", job.model),
        ("submitter", job.submitter),
        ("steward", job.steward),
        ("issued", job.issued_at),
        ("completed", job.completed_at),
        ("output", job.output_hash),
        ("so far", _provisional(job)),
    ):
        if value:
            click.echo(f"  {name:<9}  {plain(value)}")
    for refusal in job.refusals:
        click.echo(f"  {plain(refusal.node_id)}: {plain(refusal.reason)}")


def _provisional(job: Job) -> str:
    found = job.provisional
    if found is None:
        return ""
    output = f", output {found.output_hash}" if found.output_hash else ""
    return f"{found.status}{output}, by {found.by} alone: not final"


def _record_lines(job: Job, found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Who keeps the job's record, who took it over, and what they have decided."""
    chain, holders = found["record"]["chain"], found["spec"]["holders"]
    ballot = {"config": 0, "epoch": 0, "node_id": found["spec"]["steward"]}
    for certificate in chain:
        if certificate["decree"]["kind"] == "next":
            holders = certificate["decree"]["holders"]
            ballot = {"config": ballot["config"] + 1, "epoch": 0, "node_id": certificate["decree"]["steward"]}
        else:
            ballot = certificate["ballot"]
            voters = ", ".join(vote["node_id"] for vote in certificate["votes"])
            yield "decided", f"{job.status}, by {len(certificate['votes'])} of {len(holders)} holders: {voters}"
    for holder in holders:
        yield "holder", holder["node_id"]
    if job.steward == ballot["node_id"] == found["spec"]["steward"]:
        return
    known = [ballot, *(award["ballot"] for award in found["awards"])]
    led = [(one["config"], one["epoch"]) for one in known if one["node_id"] == job.steward]
    since = f" since ballot {min(led)[0]}.{min(led)[1]}" if led else ""
    yield "took over", f"{job.steward}{since}; first was {found['spec']['steward']}"


def _print_details(found: dict[str, Any]) -> None:
    from meshnode.client.results import Job, read_result

    job = read_result(found, Job)
    _print_job(job)
    for name, value in _record_lines(job, found):
        click.echo(f"  {name:<9}  {plain(value)}")
    click.echo("")
    print_table(
        ("TASK", "STATUS", "LATENCY", "RUN", "ATTEMPT", "NODE", "OUTPUT"),
        (
            (
                receipt["job_id"],
                receipt["status"],
                f"{receipt['latency_ms']} ms",
                f"{receipt['run_ms']} ms",
                receipt["attempt"],
                receipt["node_id"],
                (receipt["output_hash"] or receipt.get("error", ""))[:80],
            )
            for receipt in found["receipts"]
        ),
    )
    lost = [
        (task["job_id"], attempt["outcome"], attempt["attempt"], attempt["node_id"], attempt["reason"])
        for task in found["tasks"]
        for attempt in task["tries"]
        if attempt["outcome"] not in ("success", "running", "offered")
    ]
    if lost:
        click.echo("")
        print_table(("TASK", "TRY", "ATTEMPT", "NODE", "WHY"), lost)
    placed = [
        (task["job_id"], attempt["attempt"], attempt["node_id"], attempt["why"])
        for task in found["tasks"]
        for attempt in task["tries"]
        if attempt.get("why")
    ]
    if placed:
        click.echo("")
        print_table(("TASK", "ATTEMPT", "NODE", "GIVEN TO IT FOR"), placed)
