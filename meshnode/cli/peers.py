"""``infra peers``: who is known, and what they can do."""

from __future__ import annotations

import click

from meshnode.cli.common import a_client, asks_a_node, print_json, print_table, size_text


@click.command()
@asks_a_node
def peers(api: str | None, as_json: bool) -> None:
    """List the peers that the node knows, itself first."""
    with a_client(api) as client:
        found = client.peers()
    if as_json:
        print_json(found)
        return
    print_table(
        ("NODE", "", "CPU", "MEMORY", "ISOLATION", "LABELS", "ADDRESS"),
        (
            (
                peer["node_id"],
                peer["relation"],
                f"{peer['cpu']:g}",
                size_text(peer["memory_bytes"]),
                ",".join(peer["isolation"]),
                ",".join(f"{key}={value}" for key, value in peer["labels"].items()),
                next(iter(peer["addresses"]), ""),
            )
            for peer in found
        ),
    )
