"""``infra cancel``: end a job."""

from __future__ import annotations

import click

from meshnode.cli.common import a_client, asks_a_node, plain, print_json
from meshnode.cli.group import DONE, NO_NODE


@click.command()
@click.option("--id", "job_id", required=True, metavar="ID", help="Its id, the start of it, or its alias.")
@asks_a_node
def cancel(job_id: str, api: str | None, as_json: bool) -> int:
    """End a job that was submitted with this home's key.

    Exit 0 once it has ended, however; 3 if that is not decided: the holders that heard of it remember the request.
    """
    with a_client(api) as client:
        ended = client.cancel(job_id)
    if as_json:
        print_json(ended.as_json())
    elif ended.status == "cancelled":
        click.echo(f"{plain(ended.job_id)} is cancelled")
    elif ended.status == "requested":
        click.echo(f"{plain(ended.job_id)}: requested; no majority of the job's holders answers")
    else:
        what = f", output {ended.output_hash}" if ended.output_hash else f": {ended.error}" if ended.error else ""
        click.echo(f"{plain(ended.job_id)} already finished: {plain(ended.status)}{plain(what)}")
    return NO_NODE if ended.status == "requested" else DONE
