"""From a job file to an accepted job.

All that can be checked here is checked before the first byte leaves: the file, the model, the two laid over each
other, the image. Then the blobs, the signature, the outbox, and only then the job itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from meshnode.api import requests
from meshnode.client.compile import compile_spec
from meshnode.client.connection import Connection, Progress
from meshnode.client.errors import ClientError, NoNode, RequestRefused
from meshnode.client.home import keep_signed, submitter_key
from meshnode.client.images import check_tiles
from meshnode.client.results import Accepted, Proposal, ResolvedModel, read_result
from meshnode.client.superseding import end_superseded, superseded_by
from meshnode.jobs.bundle import Bundle, read_bundle
from meshnode.jobs.canonical import canonical_json
from meshnode.jobs.errors import InvalidFile
from meshnode.jobs.inputs import Link as BlobReference
from meshnode.jobs.inputs import LocalFile, with_replaced
from meshnode.jobs.jobfile import JobFile, load_job
from meshnode.jobs.modelfile import ModelFile, parse_model
from meshnode.jobs.settings import StageSettings, effective
from meshnode.jobs.splitting import check_split
from protocol.errors import RemoteProtocolError
from protocol.identity import Ed25519Verifier
from protocol.records import JobSpec
from protocol.show import read_signed, show_signed
from protocol.signing import Opened, RecordReader, sign
from protocol.wire import Link

Meter = Callable[[str, int], AbstractContextManager[Progress]]
"""Shows the progress of a step: given what is done and how many bytes it is, yields what to report to."""

SIGNED_SUFFIX = ".signed"


def no_meter(what: str, size: int) -> AbstractContextManager[Progress]:
    return nullcontext(lambda count: None)


@dataclass(frozen=True, slots=True)
class _Model:
    """A model that is ready to be named in a spec: published already, or a bundle that is still to be added."""

    file: ModelFile
    bundle: Bundle | None = None
    manifest: Link | None = None
    files: tuple[Link, ...] = ()
    keepers: tuple[str, ...] = ()


def submit_file(connection: Connection, path: Path, home: Path, meter: Meter = no_meter) -> Accepted:
    """Hand in the job in the file at ``path``: a job file, or a signed job from the outbox.

    Raises InvalidFile naming the place in the file, or ClientError.
    """
    if path.suffix == SIGNED_SUFFIX:
        return submit_again(connection, path)
    job = load_job(path)
    model = _find_model(connection, job)
    settings = effective(model.file.layer, job.layer, file=job.file)
    _check_input(job, settings, meter)
    key = submitter_key(home)
    supersedes = superseded_by(connection, job, home, key.peer_id) if job.supersedes is not None else None
    proposal = read_result(connection.ask(requests.Propose(durability=job.durability)), Proposal)
    manifest, model_files = _add_model(connection, model, meter)
    job_input, input_files = _add_input(connection, job, meter)
    spec = compile_spec(
        job,
        model.file,
        settings,
        proposal,
        manifest=manifest,
        job_input=job_input,
        blobs=(*input_files, *model_files),
        submitter=key.peer_id,
        nonce=secrets.token_bytes(16),
        supersedes=supersedes,
    )
    opened = sign(spec, key)
    signed = show_signed(opened.signed)
    kept = keep_signed(home, opened.digest.hex(), signed)
    return _hand_in(connection, opened, model.keepers, kept, meter)


def submit_again(connection: Connection, path: Path) -> Accepted:
    """Hand in a job that was signed earlier: the same job, however often. Raises InvalidFile, ClientError."""
    try:
        with path.open() as file:
            signed = file.read(requests.SIGNED_CHARS_MAX + 1).strip()
        opened = RecordReader(Ed25519Verifier()).open(read_signed(signed), JobSpec)
    except OSError as error:
        raise InvalidFile(str(path), "", f"cannot be read: {error.strerror}") from None
    except (RemoteProtocolError, UnicodeDecodeError) as error:
        raise InvalidFile(path.name, "", f"is not a signed job: {error}") from None
    return _hand_in(connection, opened, (), path, no_meter)


def _hand_in(
    connection: Connection, spec: Opened[JobSpec], keepers: tuple[str, ...], kept: Path, meter: Meter
) -> Accepted:
    signed = show_signed(spec.signed)
    try:
        with meter("handing in the job", 0):
            answer = connection.ask(requests.Submit(signed=signed, sources=keepers[:15]))
    except NoNode as error:
        raise NoNode(f"{error}; the same job can be handed in again: infra submit {kept}") from None
    accepted = read_result(answer, Accepted)
    if spec.record.supersedes is None:
        return accepted
    with meter("ending the job that it supersedes", 0):
        note = end_superseded(connection, signed, spec.record.supersedes.hex())
    return msgspec.structs.replace(accepted, notes=(*accepted.notes, note))


# -- the model ---------------------------------------------------------------------------------------------------------


def _find_model(connection: Connection, job: JobFile) -> _Model:
    if job.model_dir is not None:
        bundle = read_bundle(job.model_dir)
        return _Model(bundle.model, bundle=bundle)
    try:
        found = read_result(connection.ask(requests.Resolve(model=job.model)), ResolvedModel)
    except RequestRefused as error:
        raise InvalidFile(job.file, "model", str(error)) from None
    return _Model(
        parse_model(found.content.get("model"), job.model),  # type: ignore[arg-type]  # it checks
        manifest=Link(cid=found.manifest.cid, size=found.manifest.size),
        files=tuple(_files_of(job, found.content)),
        keepers=found.keepers,
    )


def _files_of(job: JobFile, manifest: dict[str, Any]) -> Iterator[Link]:
    files = manifest.get("files")
    for file in files if isinstance(files, list) else ():
        match file:
            case {"cid": str(cid), "size": int(size)} if size >= 0:
                yield Link(cid=cid, size=size)
            case _:
                raise InvalidFile(job.file, "model", f"the manifest of {job.model} lists a file without cid and size")


def _add_model(connection: Connection, model: _Model, meter: Meter) -> tuple[Link, tuple[Link, ...]]:
    if model.bundle is None:
        assert model.manifest is not None
        return model.manifest, model.files
    return add_bundle(connection, model.bundle, meter)


def add_bundle(connection: Connection, bundle: Bundle, meter: Meter = no_meter) -> tuple[Link, tuple[Link, ...]]:
    """Add a model's files and its manifest as blobs; the manifest first in the answer."""
    links: dict[str, Link] = {}
    with meter(f"adding model {bundle.model.model_id}", sum(file.size for file in bundle.files)) as progress:
        for file in bundle.files:
            links[file.path] = _add_file(connection, file.source, progress)
    manifest = canonical_json(bundle.manifest({path: link.cid for path, link in links.items()}))
    return connection.add_bytes(manifest), tuple(links.values())


# -- the input ---------------------------------------------------------------------------------------------------------


def _check_input(job: JobFile, settings: StageSettings, meter: Meter) -> None:
    """Raise InvalidFile for what a split could not cut."""
    key = check_split(settings.split, job.input, file=job.file)
    if settings.split.mode == "tile":
        place = f"input.{key}"
        for file in job.local_files:
            if file.steps == (key,):
                with meter(f"reading {file.path.name}", 0):
                    check_tiles(file.path, settings, file=job.file, place=place)


def _add_input(connection: Connection, job: JobFile, meter: Meter) -> tuple[Link, list[Link]]:
    """Add the input's files, and the input object with links in their place."""
    links: list[Link] = []
    replacements: dict[tuple[str | int, ...], Any] = {}
    with meter("adding the input", sum(file.path.stat().st_size for file in job.local_files)) as progress:
        for reference in job.references:
            place = "input." + ".".join(str(step) for step in reference.steps)
            if isinstance(reference, LocalFile):
                link, media_type = _add_file(connection, reference.path, progress), reference.media_type
            elif isinstance(reference, BlobReference):
                link, media_type = _known_blob(connection, reference.cid, job.file, place), "application/octet-stream"
            else:
                raise InvalidFile(job.file, place, "http addresses are not fetched by this version; give a file")
            links.append(link)
            replacements[reference.steps] = {"cid": link.cid, "size": link.size, "media_type": media_type}
    content = canonical_json(with_replaced(job.input, replacements))
    return connection.add_bytes(content), links


def _known_blob(connection: Connection, cid: str, file: str, place: str) -> Link:
    size = connection.blob_size(cid)
    if size is None:
        raise InvalidFile(file, place, f"the node does not have ipfs://{cid}")
    return Link(cid=cid, size=size)


def _add_file(connection: Connection, path: Path, progress: Progress) -> Link:
    try:
        return connection.add_file(path, progress)
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror or error}") from None
