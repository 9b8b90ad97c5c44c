"""The way to a node of one's own: its HTTP API on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from meshnode.api import requests
from meshnode.client.connection import Progress
from meshnode.client.errors import ClientError, NoNode, RequestRefused
from meshnode.client.results import Blob, read_result
from protocol.wire import Link

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
SUBMIT_TIMEOUT_S = 900.0
"""The node may have to fetch a model first."""
_PIECE_BYTES = 1 << 20


def find_api(api: str | None, home: Path) -> tuple[str, str]:
    """URL and token of the node that ``api`` names, or else of the one whose home is ``home``.

    Raises NoNode, or RequestRefused for a URL that is none.
    """
    if api is None:
        path = home / "api.json"
        try:
            content = json.loads(path.read_text())
            return str(content["url"]), str(content["token"])
        except FileNotFoundError:
            hint = "start one with `infra up`, or name one with --api"
            raise NoNode(f"no node runs here, there is no {path}; {hint}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoNode(f"{path} cannot be read: {error}") from None
    try:
        url = httpx.URL(api)
    except (httpx.InvalidURL, TypeError):
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise RequestRefused("--api: not a URL such as http://TOKEN@127.0.0.1:PORT")
    return str(url.copy_with(username="", password="")), url.username


class HttpConnection:
    """Requests to one node, one after the other."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._client = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )

    def __enter__(self) -> HttpConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    # -- what every connection does ------------------------------------------------------------------------------------

    def ask(self, request: requests.AnyRequest) -> Any:
        match request:
            case requests.Propose(durability=durability):
                return self.get("/v1/proposal", durability=durability)
            case requests.Resolve(model=model):
                return self.get(f"/v1/models/{quote(model, safe='/')}")
            case requests.Submit(signed=signed, sources=sources):
                return self.post("/v1/jobs", SUBMIT_TIMEOUT_S, signed=signed, sources=list(sources))
            case requests.GetJob():
                return self.get(_job(request))
            case requests.GetDetails():
                return self.get(_job(request, "/details"))
            case requests.GetOutput(files=files):
                return self.post(_job(request, "/output", files="true" if files else ""), SUBMIT_TIMEOUT_S)
            case requests.Cancel(signed=signed):
                return self.post("/v1/cancel", signed=signed)

    def add_file(self, path: Path, progress: Progress | None = None) -> Link:
        def pieces() -> Iterator[bytes]:
            with path.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece
                    if progress:
                        progress(len(piece))

        return self._add(pieces())

    def add_bytes(self, data: bytes) -> Link:
        return self._add(data)

    def blob_size(self, cid: str) -> int | None:
        try:
            answer = self._send("HEAD", f"/v1/blobs/{quote(cid, safe='')}")
        except RequestRefused:
            return None
        return int(answer.headers["content-length"])

    def read_blob(self, blob: Link) -> Iterator[bytes]:
        try:
            with self._client.stream("GET", f"/v1/blobs/{blob.cid}") as answer:
                if answer.is_error:
                    answer.read()
                    raise _refusal_in(answer)
                yield from answer.iter_bytes(_PIECE_BYTES)
        except httpx.HTTPError as error:
            raise self._no_node(error) from None

    # -- what only a node of one's own answers -------------------------------------------------------------------------

    def get(self, path: str, **query: Any) -> Any:
        return _json(self._send("GET", path, params=query or None))

    def post(self, path: str, timeout_s: float = ANSWER_TIMEOUT_S, **body: Any) -> Any:
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        return _json(self._send("POST", path, json=body, timeout=timeout))

    def _add(self, content: bytes | Iterator[bytes]) -> Link:
        timeout = httpx.Timeout(SUBMIT_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        added = read_result(_json(self._send("POST", "/v1/blobs", content=content, timeout=timeout)), Blob)
        return Link(cid=added.cid, size=added.size)

    def _send(self, method: str, path: str, **rest: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **rest)
        except httpx.HTTPError as error:
            raise self._no_node(error) from None
        if answer.is_error:
            raise _refusal_in(answer)
        return answer

    def _no_node(self, error: httpx.HTTPError) -> NoNode:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return NoNode(f"no node answers at {self._url}")
        if isinstance(error, httpx.TimeoutException):
            return NoNode(f"the node at {self._url} does not answer in time")
        return NoNode(f"the connection to the node at {self._url} broke: {error}")


def refusal(error: Any) -> ClientError:
    """A node's error as ours: silence in the mesh behind it is like no answer at all."""
    match error:
        case {"code": "no-answer", "message": str(message)}:
            return NoNode(message)
        case {"code": str(code), "message": str(message), "place": str(place)}:
            return RequestRefused(message, code=code, place=place)
        case _:
            return RequestRefused("the node refused without saying why", code="internal")


def _refusal_in(answer: httpx.Response) -> ClientError:
    try:
        return refusal(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return RequestRefused(f"the node answered {answer.status_code} {answer.reason_phrase}", code="internal")


def _job(request: requests.OfOneJob, what: str = "", **query: str) -> str:
    given = {key: value for key, value in {"submitter": request.submitter, **query}.items() if value}
    return f"/v1/jobs/{quote(request.job, safe='')}{what}{'?' if given else ''}{urlencode(given)}"


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise NoNode(f"what answers at {answer.url.host}:{answer.url.port} is not a node") from None
