"""``infra output``: fetch what a job made."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshnode.cli.common import a_client, asks_a_node, plain, print_json, progress_bar, shows_progress, size_text

if TYPE_CHECKING:
    from meshnode.client.client import Client


@click.command()
@click.option("--job", "job_id", required=True, metavar="ID", help="Its id, the start of it, or its alias.")
@click.option("-o", "file", required=True, type=click.Path(path_type=Path), help="Where to write it; - is stdout.")
@click.option("--files", "folder", type=click.Path(path_type=Path), help="Put the files that it links to here.")
@asks_a_node
def output(job_id: str, file: Path, folder: Path | None, api: str | None, as_json: bool) -> None:
    """Fetch the final output; `sha256sum` of the file is the job's output_hash.

    Files that the output links to are named by the CID in the link, with an ending that fits their media type.
    """
    if folder is not None and str(file) == "-":
        raise click.UsageError("--files needs a file for the output: give another -o than -")
    with a_client(api) as client:
        found, pieces = client.output(job_id, files=folder is not None)
        if str(file) == "-":
            _copy(pieces, sys.stdout.buffer.write, found.output_hash)
            sys.stdout.buffer.flush()
            return
        if shows_progress(as_json):
            with progress_bar("fetching", found.size) as progress:
                _write(pieces, file, found.output_hash, progress)
        else:
            _write(pieces, file, found.output_hash)
        if folder is not None:
            _write_files(client, file, folder)
    if as_json:
        print_json({**found.as_json(), "file": str(file)})
    else:
        click.echo(f"{file}: {size_text(found.size)} of {plain(found.job_id)}, sha256 {plain(found.output_hash)}")


def _write(
    pieces: Iterator[bytes], file: Path, output_hash: str, progress: Callable[[int], None] = lambda count: None
) -> None:
    """Put ``pieces`` at ``file``, all of them or nothing."""
    with _placed(file) as write:
        _copy(pieces, write, output_hash, progress)


@contextmanager
def _placed(file: Path) -> Iterator[Callable[[bytes], object]]:
    """Yield what writes to a file that is at ``file`` once all is written, and nowhere if it is not."""
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as temporary:
            try:
                yield temporary.write
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


def _write_files(client: Client, output: Path, folder: Path) -> None:
    """Put the files to which the output at ``output`` links into ``folder``."""
    from meshnode.execution.linked import linked_items  # here: only this needs it

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{folder}: {error.strerror or error}") from None
    for link, item in linked_items(output):
        media_type = item.get("media_type")
        ending = mimetypes.guess_extension(media_type) if isinstance(media_type, str) else None
        target = folder / (link.cid + (ending or ""))
        if not target.exists():
            with _placed(target) as write:
                for piece in client.file(link):
                    write(piece)


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
