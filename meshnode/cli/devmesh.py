"""``infra devmesh``: a local mesh of separate node processes, in the foreground."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from meshnode.cli.common import print_json


@click.command()
@click.option("--peers", type=click.IntRange(1, 64), default=4, show_default=True, help="How many nodes.")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the nodes' homes; their identities stay in it.",
)
@click.option("--mesh", default="dev", show_default=True, help="Name of the mesh.")
@click.option("--runtime", type=click.Choice(["auto", "sandbox", "docker"]), default="auto", show_default=True)
@click.option("--slots", type=click.IntRange(1, 1024), help="Tasks that each node runs at once.")
def devmesh(peers: int, home: Path, mesh: str, runtime: str, slots: int | None) -> None:
    """Run a local mesh until Ctrl-C.

    Prints one line when all nodes see each other: {"nodes": [{"api", "node_id", "pid", "home"}, …]}. The URL in "api"
    carries the token. A node that dies is not started again.
    """
    from meshnode.devmesh import DevMesh, DevMeshError

    for number in (signal.SIGINT, signal.SIGTERM):  # also where Ctrl-C is ignored, as in a shell's background
        signal.signal(number, signal.default_int_handler)
    try:
        with DevMesh.run(home.resolve(), peers, mesh=mesh, runtime=runtime, slots=slots) as running:
            print_json({"nodes": [node.as_json() for node in running.nodes]})
            while True:
                signal.pause()
    except DevMeshError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        pass
