"""Models by name: publish one, list them, find the one that is meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshnode import retention
from meshnode.api.core import Core
from meshnode.api.errors import ApiError
from meshnode.blobs import cid as cids
from meshnode.blobs.errors import BlobError
from meshnode.jobs.canonical import InvalidJson, loads_strict
from meshnode.jobs.errors import InvalidFile
from meshnode.jobs.modelfile import parse_model
from protocol.events import PointerPublished
from protocol.identity import PeerId
from protocol.messages import PointerStored
from protocol.records import ModelPointer
from protocol.show import show_link, show_time
from protocol.wire import Link

Json = dict[str, Any]

MANIFEST_BYTES_MAX = 4 << 20
_ASKED_MAX = 15
"""Peers that are asked for a manifest of which only the CID is known."""


class Models:
    """Operations on published models."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def published(self) -> list[Json]:
        """The published models that a search of the mesh finds, by name and publisher."""
        found = await self._pointers("")
        return [show_model(pointer) for pointer in sorted(found, key=lambda one: (one.model, one.publisher))]

    async def resolve(self, text: str) -> Json:
        """The model that ``text`` means, with its manifest, which this node has afterwards."""
        pointer, link, keepers = await self._model_of(text)
        if link.size > MANIFEST_BYTES_MAX:
            raise ApiError("bad-request", f"{text} is not a model: it is too large for a manifest", "model")
        try:
            await self._core.node.fetch_blob(link, keepers)
            content = await self._core.node.blobs.read(link.cid, 0, self._core.node.blobs.size(link.cid))
            manifest = loads_strict(content)
            model = parse_model(manifest["model"])
        except BlobError as error:
            raise ApiError("not-found", f"the files of {text} cannot be had: {error}", "model") from None
        except (InvalidJson, InvalidFile, TypeError, KeyError) as error:
            raise ApiError("bad-request", f"{text} is not a model: {error}", "model") from None
        found = (
            show_model(pointer) if pointer else {"name": model.model_id, "publisher": None, "keepers": list(keepers)}
        )
        return {**found, "manifest": {"cid": link.cid, "size": len(content)}, "content": manifest}

    async def publish(self, signed: str) -> Json:
        """Make a model findable under its name. Its files must be at this node, and are kept here."""
        opened = self._core.open(signed, ModelPointer)
        pointer = opened.record
        if self._core.node.peer_id not in pointer.keepers:
            raise ApiError("bad-request", "the pointer does not name this node as a keeper of the files", "keepers")
        for link in (pointer.manifest, *pointer.files):
            if not self._core.has(link):
                raise ApiError("bad-request", f"blob {link.cid} of the model is not at this node", "files")
        for link in (pointer.manifest, *pointer.files):
            retention.keep_until(self._core.node.blobs, link.cid, pointer.not_after / 1000)
        await self._core.ask(PointerStored, lambda number: PointerPublished(number, opened.signed))
        return show_model(pointer)

    async def _model_of(self, text: str) -> tuple[ModelPointer | None, Link, Sequence[PeerId]]:
        try:
            cid = cids.canonical(text)
        except ValueError:
            pointer = await self._named_model(text)
            return pointer, pointer.manifest, pointer.keepers
        if self._core.node.blobs.has(cid):
            return None, Link(cid=cid, size=self._core.node.blobs.size(cid)), (self._core.node.peer_id,)
        known = [capability.peer for capability in self._core.node.snapshot().known]
        return None, Link(cid=cid, size=MANIFEST_BYTES_MAX), known[:_ASKED_MAX]

    async def _named_model(self, text: str) -> ModelPointer:
        publisher, _, name = text.rpartition("/")
        found = [one for one in await self._pointers(name) if one.model == name]
        if publisher:
            found = [one for one in found if one.publisher.startswith(publisher)]
        if not found:
            raise ApiError("not-found", f"no model {text!r} is published in this mesh", "model")
        if len(found) > 1:
            choices = ", ".join(sorted(f"{one.publisher}/{one.model}" for one in found)[:4])
            raise ApiError("ambiguous", f"{len(found)} publishers have a model {name!r}: say {choices}", "model")
        return found[0]

    async def _pointers(self, name: str) -> list[ModelPointer]:
        """The newest of each publisher and name that is neither expired nor withdrawn."""
        newest: dict[tuple[str, str], ModelPointer] = {}
        for pointer in await self._core.search("model", name, ModelPointer):
            key = (pointer.publisher, pointer.model)
            if key not in newest or newest[key].issued_at < pointer.issued_at:
                newest[key] = pointer
        now = self._core.node.wall()
        return [pointer for pointer in newest.values() if not pointer.withdrawn and pointer.not_after > now]


def show_model(pointer: ModelPointer) -> Json:
    return {
        "name": pointer.model,
        "publisher": pointer.publisher,
        "manifest": show_link(pointer.manifest),
        "files": len(pointer.files),
        "size": sum(link.size for link in pointer.files),
        "keepers": list(pointer.keepers),
        "issued_at": show_time(pointer.issued_at),
        "not_after": show_time(pointer.not_after),
    }
