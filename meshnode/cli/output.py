"""``infra output``: fetch what a job made."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from meshnode.cli.common import a_client, asks_a_node, plain, print_json, progress_bar, shows_progress, size_text


@click.command()
@click.option("--job", "job_id", required=True, metavar="ID", help="Its id, the start of it, or its alias.")
@click.option("-o", "file", required=True, type=click.Path(path_type=Path), help="Where to write it; - is stdout.")
@asks_a_node
def output(job_id: str, file: Path, api: str | None, as_json: bool) -> None:
    """Fetch the final output; `sha256sum` of the file is the job's output_hash."""
    with a_client(api) as client:
        found, pieces = client.output(job_id)
        if str(file) == "-":
            _copy(pieces, sys.stdout.buffer.write, found.output_hash)
            sys.stdout.buffer.flush()
            return
        if shows_progress(as_json):
            with progress_bar("fetching", found.size) as progress:
                _write(pieces, file, found.output_hash, progress)
        else:
            _write(pieces, file, found.output_hash)
    if as_json:
        print_json({**found.as_json(), "file": str(file)})
    else:
        click.echo(f"{file}: {size_text(found.size)} of {plain(found.job_id)}, sha256 {plain(found.output_hash)}")


def _write(
    pieces: Iterator[bytes], file: Path, output_hash: str, progress: Callable[[int], None] = lambda count: None
) -> None:
    """Put ``pieces`` at ``file``, all of them or nothing."""
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as temporary:
            try:
                _copy(pieces, temporary.write, output_hash, progress)
                temporary.flush()
                mask = os.umask(0)
                os.umask(mask)
                Path(temporary.name).chmod(0o666 & ~mask)
                Path(temporary.name).replace(file)
            except BaseException:
                Path(temporary.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror or error}") from None


def _copy(
    pieces: Iterator[bytes],
    write: Callable[[bytes], object],
    output_hash: str,
    progress: Callable[[int], None] = lambda count: None,
) -> None:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        write(piece)
        progress(len(piece))
    if f"0x{digest.hexdigest()}" != output_hash:
        raise click.ClickException(f"what the node sent does not have the output's hash, {plain(output_hash)}")
