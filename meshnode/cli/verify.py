"""``infra verify``: check what ``infra job --details --json`` printed, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from meshnode.cli.common import plain, print_json, prints_json
from meshnode.cli.group import DONE, JOB_FAILED

BYTES_MAX = 256 << 20


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@prints_json
def verify(file: Path, as_json: bool) -> int:
    """Check FILE (- is stdin): exit 0 if all of it holds, 1 and the places if not."""
    from protocol.identity import Ed25519Verifier
    from protocol.verify import verify as problems_in

    document = _read(file)
    problems = problems_in(document, Ed25519Verifier())
    receipts = document.get("receipts") if isinstance(document, dict) else None
    count = len(receipts) if isinstance(receipts, list) else 0
    if as_json:
        found = [{"place": problem.place, "message": problem.sentence} for problem in problems]
        print_json({"ok": not problems, "receipts": count, "problems": found})
    elif problems:
        for problem in problems:
            click.echo(f"error: {file}: {plain(problem.place or 'the document')}: {plain(problem.sentence)}", err=True)
    else:
        click.echo(f"{file}: {count} receipts, all good{_votes_in(document)}")
    return JOB_FAILED if problems else DONE


def _votes_in(document: Any) -> str:
    """What the good document proves about how the job ended."""
    if document["record"]["final"] is None:
        return ""
    votes = {vote["node_id"] for vote in document["record"]["chain"][-1]["votes"]}
    return f", as are {len(votes)} votes for the job's end" if len(votes) > 1 else ", as is the vote for the job's end"


def _read(file: Path) -> object:
    try:
        with click.open_file(str(file), "rb") as stream:
            data = stream.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            raise click.ClickException(f"{file}: is larger than {BYTES_MAX} bytes")
        document: object = json.loads(data, object_pairs_hook=_without_duplicates)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    except RecursionError:
        raise click.ClickException(f"{file}: is nested too deeply") from None
    except ValueError as error:
        raise click.ClickException(f"{file}: not JSON: {error}") from None
    return document


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Of two equal keys a reader may see the first and this check the second."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands there twice")
    return value
