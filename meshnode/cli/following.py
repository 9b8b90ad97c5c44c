"""Following a job to its end, with a bar for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from meshnode.cli.common import plain, print_json, shows_progress

if TYPE_CHECKING:
    from meshnode.client.results import Job


def follow(states: Iterable[Job], *, as_json: bool, each: bool) -> Job:
    """The last of ``states``; on the way a bar at a terminal, and with ``each`` a line for every change."""
    last: Job | None = None
    with _bar(shown=shows_progress(as_json) and not each) as show:
        for last in states:
            show(last)
            if each and as_json:
                print_json(last.as_json())
            elif each:
                click.echo(line_of(last))
    assert last is not None
    return last


def line_of(job: Job) -> str:
    """A job in one line."""
    parts = [f"{plain(job.job_id)}  {job.status}"]
    if job.total_shards:
        parts.append(f"{job.succeeded}/{job.total_shards} shards")
    if job.running:
        parts.append(f"{job.running} running")
    if job.failed:
        parts.append(f"{job.failed} failed")
    if job.merge_status == "success":
        parts.append("merge success")
    if job.provisional is not None:
        parts.append(f"provisionally {plain(job.provisional.status)}, until a majority of its holders agrees")
    reason = job.error or job.waiting
    return ", ".join(parts) + (f": {plain(reason)}" if reason else "")


@contextmanager
def _bar(*, shown: bool) -> Iterator[Callable[[Job], None]]:
    if not shown:
        yield lambda job: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("queued", total=None)

        def show(job: Job) -> None:
            text = f"{plain(job.job_id)} {job.status}" + (f": {plain(job.waiting)}" if job.waiting else "")
            total = job.total_shards or None
            progress.update(task, description=escape(text), total=total, completed=job.succeeded + job.failed)

        yield show
