"""What several commands share: which node to ask, and how to print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from meshnode.client.client import Client
    from meshnode.client.connection import Progress

F = TypeVar("F", bound=Callable[..., Any])

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
_API = click.option(
    "--api",
    envvar="INFRA_API",
    metavar="URL",
    help="The node to ask, http://TOKEN@127.0.0.1:PORT, also in INFRA_API; else that of INFRA_HOME or ~/.meshnode.",
)


def asks_a_node(command: F) -> F:
    """Give a command ``--api`` and ``--json``."""
    return _API(_JSON(command))


def prints_json(command: F) -> F:
    """Give a command ``--json``."""
    return _JSON(command)


@contextmanager
def a_client(api: str | None) -> Iterator[Client]:
    """A client of the node that the options name."""
    from meshnode.client.client import Client  # here: --help needs no HTTP library

    with Client.to_node(api) as client:
        yield client


def print_json(value: Any) -> None:
    click.echo(json.dumps(value))


def plain(text: object) -> str:
    """Text from a stranger in one line, without what drives a terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in str(text))


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as they need to be; nothing is cut, so that it can be copied."""
    lines = [list(header), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def shows_progress(as_json: bool) -> bool:
    """Whether to draw progress: for people at a terminal only."""
    return not as_json and sys.stderr.isatty()


@contextmanager
def progress_bar(what: str, size: int) -> Iterator[Progress]:
    """A bar on stderr for a step of ``size`` bytes, or a spinner if that is 0; gone when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

    columns = (BarColumn(), DownloadColumn()) if size else ()
    console = Console(stderr=True)
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), *columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=size or None)
        yield lambda count: bar.advance(task, count)


def size_text(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
