"""From a job file to an accepted job, over HTTP to a real core in virtual time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshnode.api import requests
from meshnode.client.client import Client
from meshnode.client.errors import NoNode, RequestRefused
from meshnode.client.home import submitter_key
from meshnode.client.http import HttpConnection, find_api
from meshnode.jobs.errors import InvalidFile
from protocol.events import JobSubmitted
from protocol.identity import Ed25519Verifier
from protocol.messages import SubmitReply
from protocol.records import JobSpec
from protocol.show import read_signed
from protocol.signing import RecordReader
from protocol.verify import verify
from tests.meshnode.api.fakes import FakeNode, running_api
from tests.meshnode.client.jobs import write_job


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[FakeNode, str]]:
    with running_api(tmp_path / "node") as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_tile_job_is_submitted_followed_and_fetched(api: tuple[FakeNode, str], home: Path, tmp_path: Path) -> None:
    _node, url = api
    with Client.to_node(url, home) as client:
        accepted = client.submit(write_job(tmp_path, job_id="first"))
        assert (accepted.job_id, accepted.copies) == ("first", 2)
        job = client.wait(accepted.full_id)
        assert (job.status, job.succeeded, job.total_shards, job.merge_status) == ("success", 4, 4, "success")
        found, pieces = client.output("first")
        content = b"".join(pieces)
        assert (content, found.output_hash) == (b'["merge 0"]', "0x" + hashlib.sha256(content).hexdigest())
        assert verify(client.details("first"), Ed25519Verifier()) == []
        assert [one.job_id for one in client.jobs()] == ["first"]
        assert client.cancel("first").status == "success"
    assert job.submitter == submitter_key(home).peer_id


async def _content(node: FakeNode, cid: str) -> bytes:
    return await node.blobs.read(cid, 0, node.blobs.size(cid))


def test_the_spec_names_all_that_the_job_needs_as_blobs(api: tuple[FakeNode, str], home: Path, tmp_path: Path) -> None:
    node, url = api
    with Client.to_node(url, home) as client:
        client.submit(write_job(tmp_path))
    (submitted,) = [event for event in node.asked if isinstance(event, JobSubmitted)]
    spec = RecordReader(Ed25519Verifier()).open(submitted.spec, JobSpec).record
    assert all(node.blobs.has(link.cid) and node.blobs.size(link.cid) == link.size for link in spec.blobs)
    job_input = json.loads(node.blobs.path(spec.input.cid).read_bytes())
    photo = job_input["image_url"]
    assert node.blobs.path(photo["cid"]).read_bytes() == (tmp_path / "photo.png").read_bytes()
    assert photo["media_type"] == "image/png"
    manifest = json.loads(node.blobs.path(spec.stages[0].manifest.cid).read_bytes())
    assert [file["path"] for file in manifest["files"]] == ["features.py", "model.yaml"]
    assert {photo["cid"], *(file["cid"] for file in manifest["files"])} < {link.cid for link in spec.blobs}


def test_a_published_model_is_used_by_name(api: tuple[FakeNode, str], home: Path, tmp_path: Path) -> None:
    _node, url = api
    with Client.to_node(url, home) as client:
        job = write_job(tmp_path, model="features-v1")
        published = client.publish(tmp_path / "model")
        assert published["name"] == "features-v1"
        by_name = client.submit(job)
        by_publisher = client.submit(write_job(tmp_path, model=f"{published['publisher']}/features-v1"))
        by_cid = client.submit(write_job(tmp_path, model=published["manifest"]["cid"]))
        assert len({by_name.full_id, by_publisher.full_id, by_cid.full_id}) == 3
        assert client.wait(by_cid.full_id).status == "success"


def test_the_signed_job_is_on_disk_before_it_is_sent_and_is_the_same_job_again(
    api: tuple[FakeNode, str], home: Path, tmp_path: Path
) -> None:
    _, url = api

    class Breaking(HttpConnection):
        def ask(self, request: requests.AnyRequest) -> Any:
            if isinstance(request, requests.Submit):
                kept = [path.read_text() for path in (home / "outbox").iterdir()]
                assert kept == [request.signed]
                raise NoNode("the connection broke")
            return super().ask(request)

    with Breaking(*find_api(url, home)) as connection:
        with pytest.raises(NoNode, match=r"infra submit .*\.signed"):
            Client(connection, home).submit(write_job(tmp_path))
    (kept,) = (home / "outbox").iterdir()
    digest = hashlib.sha256(read_signed(kept.read_text()).payload).hexdigest()
    with Client.to_node(url, home) as client:
        first, second = client.submit(kept), client.submit(kept)
        assert first.full_id == second.full_id == digest == kept.stem
        assert len(client.jobs()) == 1


def test_only_the_key_that_submitted_cancels(api: tuple[FakeNode, str], home: Path, tmp_path: Path) -> None:
    node, url = api
    node.mesh.held_runs.update(node.mesh.peers)
    with Client.to_node(url, home) as client, Client.to_node(url, tmp_path / "other") as other:
        accepted = client.submit(write_job(tmp_path))
        with pytest.raises(RequestRefused, match="submitted with another key"):
            other.cancel(accepted.full_id)
        assert client.cancel(accepted.full_id).status == "cancelled"
        assert client.wait(accepted.full_id).status == "cancelled"


def damaged(folder: Path) -> None:
    photo = folder / "photo.png"
    content = bytearray(photo.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 0xFF
    photo.write_bytes(content)


def cut_short(folder: Path) -> None:
    photo = folder / "photo.png"
    photo.write_bytes(photo.read_bytes()[:-100])


BAD_JOBS: list[tuple[str, dict[str, Any], Any, str]] = [
    ("unknown model", {"model": "nothing-v1"}, None, "job.json: model: no model 'nothing-v1' is published"),
    ("no such directory", {"model": "./nowhere"}, None, "job.json: model: no such directory: './nowhere'"),
    (
        "missing image",
        {"input": {"image_url": "gone.png"}},
        None,
        "job.json: input.image_url: no such file: 'gone.png'",
    ),
    ("damaged image", {}, damaged, "job.json: input.image_url: the image is damaged"),
    ("image cut short", {}, cut_short, "job.json: input.image_url: the image is damaged"),
    ("no image", {"input": {"image_url": "job.json"}}, None, "job.json: input.image_url: the file is not a JPEG"),
    ("nothing to split", {"input": {}}, None, "job.json: input.image_url: is missing"),
    (
        "tile_size 0",
        {"multi_node": {"tile_size": 0}},
        None,
        "job.json: multi_node.tile_size: must be at least 1, got 0",
    ),
    ("too many shards", {"shard_count": 33}, None, "job.json: shard_count: 33 is more than max_shards, 32"),
    ("negative shards", {"shard_count": -1}, None, "job.json: shard_count: must be at least 1, got -1"),
    (
        "unknown key",
        {"shard_cuont": 4},
        None,
        "job.json: 'shard_cuont' is not a key of a job; did you mean 'shard_count'",
    ),
    (
        "more tiles than shards may be",
        {"shard_count": None, "multi_node": {"split_mode": "tile", "tile_size": 10}},
        None,
        "job.json: multi_node.max_shards: 600 tiles would make 600 shards",
    ),
    ("too large", {"params": {"text": "x" * 50_000}}, None, "job.json: params: are too large"),
    (
        "a blob nobody has",
        {"input": {"image_url": "ipfs://bafkreib"}},
        None,
        "job.json: input.image_url: the node does not",
    ),
]


@pytest.mark.parametrize(
    ("changes", "spoil", "sentence"), [bad[1:] for bad in BAD_JOBS], ids=[bad[0] for bad in BAD_JOBS]
)
def test_a_bad_job_is_one_sentence_with_its_place_and_nothing_is_started(
    api: tuple[FakeNode, str], home: Path, tmp_path: Path, changes: dict[str, Any], spoil: Any, sentence: str
) -> None:
    node, url = api
    path = write_job(tmp_path, **changes)
    if spoil is not None:
        spoil(tmp_path)
    with Client.to_node(url, home) as client, pytest.raises(InvalidFile) as caught:
        client.submit(path)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
    assert not [event for event in node.asked if isinstance(event, JobSubmitted)]
    assert not (home / "outbox").exists()


def test_the_image_is_looked_at_before_anything_is_sent(api: tuple[FakeNode, str], home: Path, tmp_path: Path) -> None:
    node, url = api
    path = write_job(tmp_path)
    damaged(tmp_path)
    with Client.to_node(url, home) as client, pytest.raises(InvalidFile):
        client.submit(path)
    assert node.asked == []
    assert node.blobs.usage().blobs == 0


@pytest.mark.parametrize("content", ["", "AAAA", "no base64", "A" * 200_000])
def test_what_is_not_a_signed_job_is_not_handed_in(
    api: tuple[FakeNode, str], home: Path, tmp_path: Path, content: str
) -> None:
    node, url = api
    path = tmp_path / "job.signed"
    path.write_text(content)
    with Client.to_node(url, home) as client, pytest.raises(InvalidFile, match=r"job\.signed: is not a signed job"):
        client.submit(path)
    assert node.asked == []


def test_without_a_node_it_says_so(home: Path, tmp_path: Path) -> None:
    with pytest.raises(NoNode, match="no node runs here"), Client.to_node(None, home):
        pass
    with Client.to_node("http://token@127.0.0.1:9", home) as client, pytest.raises(NoNode, match="no node answers at"):
        client.submit(write_job(tmp_path, model="named-v1"))
    with pytest.raises(RequestRefused, match="not a URL"), Client.to_node("127.0.0.1:80", home):
        pass


# -- taking the place of an earlier job -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alias", "start", "full id"])
def test_a_job_ends_the_one_that_it_supersedes(
    api: tuple[FakeNode, str], home: Path, tmp_path: Path, name: str
) -> None:
    node, url = api
    node.mesh.held_runs.update(node.mesh.peers)
    with Client.to_node(url, home) as client:
        old = client.submit(write_job(tmp_path, job_id="first"))
        text = {"alias": "first", "start": old.full_id[:10], "full id": old.full_id}[name]
        new = client.submit(write_job(tmp_path, job_id="second", supersedes=text))
        assert new.notes[-1] == "job first, which it supersedes, is cancelled"
        assert client.job(old.full_id).status == "cancelled"
        assert client.details("second")["spec"]["supersedes"] == old.full_id


def test_a_job_that_was_never_accepted_is_superseded_by_what_lies_in_the_outbox(
    api: tuple[FakeNode, str], home: Path, tmp_path: Path
) -> None:
    node, url = api
    with Client.to_node(url, home) as client:
        honest = node.ask

        async def deaf(make_event: Any, timeout_s: float) -> Any:
            if isinstance(make_event(0), JobSubmitted):
                return SubmitReply(number=0, accepted=False, reason="not accepted")
            return await honest(make_event, timeout_s)

        node.ask = deaf  # type: ignore[method-assign]
        with pytest.raises(RequestRefused, match="not accepted"):
            client.submit(write_job(tmp_path, job_id="first"))
        node.ask = honest  # type: ignore[method-assign]
        (kept,) = (home / "outbox").glob("*.signed")
        new = client.submit(write_job(tmp_path, job_id="second", supersedes="first"))
        assert client.details("second")["spec"]["supersedes"] == kept.stem
        assert "could not be asked to end" in new.notes[-1]


def test_only_a_job_of_the_same_submitter_is_superseded(api: tuple[FakeNode, str], home: Path, tmp_path: Path) -> None:
    _node, url = api
    with Client.to_node(url, tmp_path / "another home") as client:
        client.submit(write_job(tmp_path, job_id="theirs"))
    with Client.to_node(url, home) as client:
        with pytest.raises(InvalidFile, match="submitted with another key"):
            client.submit(write_job(tmp_path, supersedes="theirs"))
        with pytest.raises(InvalidFile, match="no job 'nobody-s' is known"):
            client.submit(write_job(tmp_path, supersedes="nobody-s"))
