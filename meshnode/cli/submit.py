"""``infra submit``: hand in a job."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshnode.cli.common import a_client, asks_a_node, plain, print_json, progress_bar, shows_progress
from meshnode.cli.following import follow, line_of
from meshnode.cli.group import DONE, JOB_FAILED

if TYPE_CHECKING:
    from meshnode.client.client import Client


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--wait", is_flag=True, help="Wait for the end; exit 1 if the job failed.")
@click.option("--watch", is_flag=True, help="As --wait, and print each change.")
@click.option("--peer", metavar="MULTIADDR", help="Hand it to any node over libp2p, without one of your own.")
@asks_a_node
def submit(job: Path, wait: bool, watch: bool, peer: str | None, api: str | None, as_json: bool) -> int:
    """Hand in the JOB file (YAML or JSON), or a signed job from the outbox once more."""
    with _client(peer, api) as client:
        accepted = client.submit(job, progress_bar) if shows_progress(as_json) else client.submit(job)
        if not as_json:
            click.echo(f"{plain(accepted.job_id)} accepted, full id {accepted.full_id}")
            for note in accepted.notes:
                click.echo(f"  note: {plain(note)}")
            sys.stdout.flush()
        if not (wait or watch):
            if as_json:
                print_json(accepted.as_json())
            return DONE
        try:
            last = follow(client.watch(accepted.full_id), as_json=as_json, each=watch)
        except KeyboardInterrupt:
            raise click.ClickException(
                f"no longer watching; the job goes on: infra job --id {plain(accepted.job_id)}"
            ) from None
        if as_json and not watch:
            print_json(last.as_json())
        elif not as_json and not watch:
            click.echo(line_of(last))
        return DONE if last.status == "success" else JOB_FAILED


def _client(peer: str | None, api: str | None) -> AbstractContextManager[Client]:
    if peer is None:
        return a_client(api)
    from meshnode.client.client import Client

    return Client.to_peer(peer)
