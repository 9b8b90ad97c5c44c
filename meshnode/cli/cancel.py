"""``infra cancel``: end a job."""

from __future__ import annotations

import click

from meshnode.cli.common import a_client, asks_a_node, plain, print_json


@click.command()
@click.option("--id", "job_id", required=True, metavar="ID", help="Its id, the start of it, or its alias.")
@asks_a_node
def cancel(job_id: str, api: str | None, as_json: bool) -> None:
    """End a job that was submitted with this home's key."""
    with a_client(api) as client:
        ended = client.cancel(job_id)
    if as_json:
        print_json(ended.as_json())
    elif ended.status == "cancelled":
        click.echo(f"{plain(ended.job_id)} is cancelled")
    else:
        click.echo(f"{plain(ended.job_id)} had ended before: {plain(ended.status)}")
