"""``infra replay``: feed what a node recorded to the peer of this version, and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshnode.cli.common import plain, print_json, prints_json
from meshnode.cli.group import DONE, JOB_FAILED

if TYPE_CHECKING:
    from protocol.trace import Mismatch

_EFFECTS_SHOWN = 6


@click.command()
@click.argument("home", type=click.Path(path_type=Path, exists=True, file_okay=False))
@prints_json
def replay(home: Path, as_json: bool) -> int:
    """Replay what the node at HOME recorded under `infra up --trace`, its latest two starts, with its own key.

    Exit 0 if every event had the same effects again, 1 and the first that had others if not.
    """
    from meshnode.recorder import FILE_NAME, PREVIOUS_NAME

    traces = [path for name in (PREVIOUS_NAME, FILE_NAME) if (path := home / name).is_file()]
    if not traces:
        raise click.ClickException(f"{home}: there is no {FILE_NAME}; a node records one with infra up --trace")
    verdicts = [_replay(path) for path in traces]
    if as_json:
        print_json({"ok": all(verdict["ok"] for verdict in verdicts), "traces": verdicts})
    else:
        for path, verdict in zip(traces, verdicts, strict=True):
            start = "" if verdict["ok"] else "error: "
            click.echo(f"{start}{path}: {plain(verdict['text'])}", err=not verdict["ok"])
    return DONE if all(verdict["ok"] for verdict in verdicts) else JOB_FAILED


def _replay(path: Path) -> dict[str, Any]:
    from random import Random

    from meshnode.keystore import HomeError, load_seed
    from protocol.errors import LocalProtocolError
    from protocol.identity import Ed25519Signer, Ed25519Verifier
    from protocol.signing import RecordReader
    from protocol.trace import Reader
    from protocol.trace import replay as feed

    key = path.parent / "node.key"
    try:
        if not key.is_file():  # a new one would be of no use
            raise click.ClickException(f"{key}: a trace is replayed with the key of its node, which is not here")
        signer = Ed25519Signer(load_seed(key))
        with path.open("rb") as stream:
            reader = Reader(stream)
            if reader.start.peer != signer.peer_id:
                return _verdict(path, False, 0, f"was recorded by {reader.start.peer}, this home is {signer.peer_id}")
            rng = Random(reader.start.seed)
            done = feed(reader.start.make_peer(signer, RecordReader(Ed25519Verifier()), rng), reader)
    except LocalProtocolError as error:
        return _verdict(path, False, 0, str(error))
    except (HomeError, OSError) as error:
        raise click.ClickException(str(error)) from None
    if done.mismatch:
        return _verdict(path, False, done.events, _difference(done.mismatch, reader.start.profile.version))
    text = f"{done.events} events replayed, identical effects"
    text += f"; {done.raised} of them raised an error, now as then" if done.raised else ""
    text += f"; the last entry is torn ({reader.torn} bytes)" if reader.torn else ""
    return _verdict(path, True, done.events, text)


def _verdict(path: Path, ok: bool, events: int, text: str) -> dict[str, Any]:
    return {"trace": path.name, "ok": ok, "events": events, "text": text}


def _difference(found: Mismatch, version: str) -> str:
    from protocol.events import MessageReceived

    event = found.event
    of_what = f" of {type(event.message).__name__}" if isinstance(event, MessageReceived) else ""
    if found.effects is None:
        now = "it raises an error now"
    else:
        kinds = [type(effect).__name__ for effect in found.effects]
        more = f" and {len(kinds) - _EFFECTS_SHOWN} more" if len(kinds) > _EFFECTS_SHOWN else ""
        now = f"it asks for {', '.join(kinds[:_EFFECTS_SHOWN]) or 'nothing'}{more} now"
    kind = type(event).__name__
    return f"other effects at event {found.index}, {kind}{of_what}, recorded by version {version}: {now}"
