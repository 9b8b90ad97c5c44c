"""``infra models``: publish a directory under a name, and find what others published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from meshnode.cli.common import (
    a_client,
    asks_a_node,
    plain,
    print_json,
    print_table,
    progress_bar,
    shows_progress,
    size_text,
)


@click.group()
def models() -> None:
    """Publish and find models."""


@models.command()
@click.argument("directory", type=click.Path(path_type=Path))
@asks_a_node
def publish(directory: Path, api: str | None, as_json: bool) -> None:
    """Publish the model in DIRECTORY under the submitter's key."""
    with a_client(api) as client:
        model = client.publish(directory, progress_bar) if shows_progress(as_json) else client.publish(directory)
    if as_json:
        print_json(model)
    else:
        click.echo(f"{_full_name(model)} is published, {model['files']} files, {size_text(model['size'])}")


@models.command("list")
@asks_a_node
def list_models(api: str | None, as_json: bool) -> None:
    """List the models that are published in the mesh."""
    with a_client(api) as client:
        found = client.models()
    if as_json:
        print_json(found)
        return
    rows = ((one["name"], one["publisher"], one["files"], size_text(one["size"]), one["issued_at"]) for one in found)
    print_table(("MODEL", "PUBLISHER", "FILES", "SIZE", "PUBLISHED"), rows)


@models.command()
@click.argument("model")
@asks_a_node
def show(model: str, api: str | None, as_json: bool) -> None:
    """Show a model: MODEL is a name, publisher/name, or a CID."""
    import json

    with a_client(api) as client:
        found = client.model(model)
    if as_json:
        print_json(found)
        return
    click.echo(f"{_full_name(found)}, manifest {plain(found['manifest']['cid'])}")
    for file in found["content"].get("files", ()):
        click.echo(f"  {plain(file['path'])}  {size_text(file['size'])}")
    click.echo(json.dumps(found["content"]["model"], indent=2))


def _full_name(model: dict[str, Any]) -> str:
    return plain(f"{model['publisher']}/{model['name']}" if model["publisher"] else model["name"])
