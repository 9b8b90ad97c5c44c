"""``infra jobs``: list them."""

from __future__ import annotations

import click

from meshnode.cli.common import a_client, asks_a_node, print_json, print_table


@click.command()
@asks_a_node
def jobs(api: str | None, as_json: bool) -> None:
    """List the jobs in the mesh, the newest first."""
    with a_client(api) as client:
        found = client.jobs()
    if as_json:
        print_json([job.as_json() for job in found])
        return
    header = ("JOB", "STATUS", "SHARDS", "MODEL", "ISSUED", "")
    print_table(
        header,
        (
            (
                job.job_id,
                job.status,
                f"{job.succeeded}/{job.total_shards}",
                job.model,
                job.issued_at,
                job.error or job.waiting,
            )
            for job in found
        ),
    )
