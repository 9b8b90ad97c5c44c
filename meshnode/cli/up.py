"""``infra up``: run a node in the foreground until it is told to stop."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from meshnode.config import Config
    from meshnode.serving import Serving


TRACE_BYTES = 256 << 20


@click.command()
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="Folder of the node's key and data.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings; else node.toml in the home.")
@click.option("--mesh", help="Name of the mesh to be in.")
@click.option("--join", multiple=True, metavar="MULTIADDR", help="A peer already in the mesh; may be repeated.")
@click.option("--listen", multiple=True, metavar="MULTIADDR", help="Where to listen; may be repeated.")
@click.option("--announce", multiple=True, metavar="MULTIADDR", help="What to tell others instead; may be repeated.")
@click.option("--runtime", type=click.Choice(["auto", "sandbox", "docker"]), help="How strangers' tasks are run.")
@click.option("--slots", type=int, help="Tasks that may run at once.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label of this node; may be repeated.")
@click.option("--region", help="Where this node is: the label region.")
@click.option("--price", type=float, help="What it wants for one CPU and second; jobs that pay less are refused.")
@click.option("--api-port", type=int, help="Port of the HTTP API on loopback; 0 takes any free one.")
@click.option(
    "--trace",
    "trace_bytes",
    flag_value=TRACE_BYTES,
    type=int,
    default=None,
    help=f"Record in the home's trace.bin, for infra replay, until it has {TRACE_BYTES >> 20} MiB.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line when the node is up.")
@click.option("--verbose", is_flag=True, help="Log details as well.")
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
def up(
    home: Path | None,
    config: Path | None,
    labels: tuple[str, ...],
    as_json: bool,
    verbose: bool,
    until_stdin_closes: bool,
    **flags: Any,
) -> None:
    """Run a node in the foreground."""
    # here, not above: libp2p takes a second to import, and --help should not
    import logging

    import trio

    from meshnode.client.home import default_home
    from meshnode.config import ConfigError, load_config, parse_labels
    from meshnode.journal import JournalFailed
    from meshnode.keystore import HomeError
    from meshnode.log import logging_to
    from meshnode.net.errors import NetworkError
    from meshnode.runtimes.base import RuntimeUnavailable

    home = (home or default_home()).absolute()  # tasks are given paths in it, and run elsewhere
    flags = {key: list(value) if isinstance(value, tuple) else value for key, value in flags.items() if value != ()}
    try:
        settings = load_config(home, file=config, flags={**flags, "labels": parse_labels(list(labels)) or None})
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with logging_to(home / "node.log", level=logging.DEBUG if verbose else logging.INFO):
            trio.run(_run, settings, as_json, until_stdin_closes)
    except Exception as error:
        cause = _first(error)
        if not isinstance(cause, ConfigError | HomeError | JournalFailed | NetworkError | RuntimeUnavailable | OSError):
            raise
        raise click.ClickException(str(cause)) from None


async def _run(settings: Config, as_json: bool, until_stdin_closes: bool) -> None:
    import trio

    from meshnode.serving import serve

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            stop = trio.Event()

            async def obey() -> None:
                """The first signal asks for an orderly leave, the second ends everything at once."""
                await signals.__anext__()
                stop.set()
                await signals.__anext__()
                nursery.cancel_scope.cancel()

            async def watch_stdin() -> None:
                """Whoever started this node holds the other end; when it is gone, so is the reason to run."""
                async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
                    while await stdin.receive_some(4096):
                        pass
                stop.set()

            nursery.start_soon(obey)
            if until_stdin_closes:
                nursery.start_soon(watch_stdin)
            async with serve(settings) as serving:
                _announce(serving, as_json)
                await stop.wait()
                await serving.node.leave()
            nursery.cancel_scope.cancel()


def _announce(serving: Serving, as_json: bool) -> None:
    node = serving.node
    if as_json:
        click.echo(
            json.dumps(
                {
                    "node_id": node.peer_id,
                    "mesh": node.config.mesh,
                    "api": serving.api,
                    "listen": node.network.addresses,
                    "isolation": list(node.offer.isolation),
                    "pid": os.getpid(),
                    "home": str(node.config.home),
                }
            )
        )
    else:
        click.echo(f"node {node.peer_id} is up in mesh {node.config.mesh!r}")
        for address in node.network.addresses:
            click.echo(f"  others join with  infra up --join {address}")
        click.echo(f"  tasks run under   {', '.join(node.offer.isolation)}")
        for reason in node.offer.missing:
            click.echo(f"  not offered:      {reason}")
        click.echo(f"  the HTTP API is   {serving.api}")
    sys.stdout.flush()


def _first(error: BaseException) -> BaseException:
    """The exception inside the groups that nurseries put around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
