"""The API as HTTP/1.1 on loopback: for the command line, the Python client, and ``curl``.

    GET    /v1/node  /v1/doctor  /v1/peers          this node, its health, whom it knows
    GET    /v1/models                               POST: publish {"signed"}
    GET    /v1/models/{name}                        a name, publisher/name, or CID, with its manifest
    GET    /v1/proposal?durability=1                who could hold a job
    GET    /v1/jobs                                 POST: submit {"signed", "sources"}
    GET    /v1/jobs/{id}  /v1/jobs/{id}/details     a full id, the start of it, or an alias; with ?submitter=PEER of
                                                    several jobs with the alias that submitter's
    GET    /v1/jobs/{id}/output                     the bytes of the output, its CID in the header X-Cid
    POST   /v1/jobs/{id}/output                     have the output at this node: {"cid", "size", "output_hash"};
                                                    with ?files=true the files to which it links, too
    POST   /v1/cancel                               {"signed"}
    POST   /v1/blobs                                (or PUT) add the body: {"cid", "size"}
    GET    /v1/blobs/{cid}                          the bytes of a blob that is at this node

Every request carries the node's token, as ``Authorization: Bearer TOKEN`` or as the user name of Basic. Every error is
``{"error": {"code", "message", "place"}}``.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import hypercorn.trio
import msgspec
import trio
from hypercorn.config import Config as ServerConfig
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from meshnode import retention
from meshnode.api import requests
from meshnode.api.errors import STATUS, ApiError
from meshnode.api.service import Service
from meshnode.blobs.errors import BlobMissing, StoreFailed, StoreFull
from protocol.identity import PeerId

log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)
Endpoint = Callable[[Request], Awaitable[Response]]

TOKEN_CHARS_MIN = 16
_PIECE_BYTES = 1 << 20


class PublishBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    signed: requests.Signed


class SubmitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    signed: requests.Signed
    sources: requests.Peers = ()


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    signed: requests.Signed


async def serve_http(
    service: Service,
    token: str,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: Any = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; ``task_status`` is trio's, and gets the base URL.

    Raises ValueError for a host that others could reach, OSError for a port that is taken.
    """
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"the API is for this machine only: {host} is not a loopback address")
    config = ServerConfig()
    config.bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    config.errorlog = logging.getLogger("meshnode.api.server")
    config.loglevel = "WARNING"
    config.graceful_timeout = 1.0
    config.include_server_header = False
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(hypercorn.trio.serve, make_app(service, token), config)
        task_status.started(url)


def make_app(service: Service, token: str) -> ASGIApp:
    """The API as an ASGI application."""
    if len(token) < TOKEN_CHARS_MIN:
        raise ValueError(f"the token needs at least {TOKEN_CHARS_MIN} characters")
    endpoints = _Endpoints(service)
    app = Starlette(
        routes=[Route(path, _guarded(endpoint), methods=[*methods]) for path, methods, endpoint in endpoints.table()],
        exception_handlers={HTTPException: _no_such_route},
    )
    return _TokenRequired(app, token)


class _Endpoints:
    """One method per route: read the request, call the service, make the response."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def table(self) -> list[tuple[str, tuple[str, ...], Endpoint]]:
        return [
            ("/v1/node", ("GET",), self.node),
            ("/v1/doctor", ("GET",), self.doctor),
            ("/v1/peers", ("GET",), self.peers),
            ("/v1/models", ("GET",), self.models),
            ("/v1/models", ("POST",), self.publish),
            ("/v1/models/{model:path}", ("GET",), self.model),
            ("/v1/proposal", ("GET",), self.proposal),
            ("/v1/jobs", ("GET",), self.jobs),
            ("/v1/jobs", ("POST",), self.submit),
            ("/v1/jobs/{job}", ("GET",), self.job),
            ("/v1/jobs/{job}/details", ("GET",), self.details),
            ("/v1/jobs/{job}/output", ("GET",), self.output),
            ("/v1/jobs/{job}/output", ("POST",), self.fetch_output),
            ("/v1/cancel", ("POST",), self.cancel),
            ("/v1/blobs", ("POST", "PUT"), self.add_blob),
            ("/v1/blobs/{cid}", ("GET",), self.blob),
        ]

    async def node(self, request: Request) -> Response:
        return JSONResponse(self._service.info())

    async def doctor(self, request: Request) -> Response:
        return JSONResponse(await self._service.doctor())

    async def peers(self, request: Request) -> Response:
        return JSONResponse({"peers": self._service.peers()})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"models": await self._service.models.published()})

    async def publish(self, request: Request) -> Response:
        body = await _body(request, PublishBody)
        return JSONResponse(await self._service.models.publish(body.signed))

    async def model(self, request: Request) -> Response:
        wanted = _arguments(requests.Resolve, {"model": request.path_params["model"]})
        return JSONResponse(await self._service.models.resolve(wanted.model))

    async def proposal(self, request: Request) -> Response:
        wanted = _arguments(requests.Propose, dict(request.query_params), strict=False)
        return JSONResponse(await self._service.jobs.propose(wanted.durability))

    async def jobs(self, request: Request) -> Response:
        return JSONResponse({"jobs": await self._service.jobs.found()})

    async def submit(self, request: Request) -> Response:
        body = await _body(request, SubmitBody)
        return JSONResponse(await self._service.jobs.submit(body.signed, body.sources), status_code=202)

    async def job(self, request: Request) -> Response:
        return JSONResponse(await self._service.jobs.one(*_job(request)))

    async def details(self, request: Request) -> Response:
        return JSONResponse(await self._service.jobs.details(*_job(request)))

    async def output(self, request: Request) -> Response:
        output = await self._service.jobs.output(*_job(request))
        return self._stream(output["cid"])

    async def fetch_output(self, request: Request) -> Response:
        wanted = _arguments(
            requests.GetOutput, {**request.query_params, "job": request.path_params["job"]}, strict=False
        )
        found = await self._service.jobs.output(wanted.job, PeerId(wanted.submitter), files=wanted.files)
        return JSONResponse(found)

    async def cancel(self, request: Request) -> Response:
        body = await _body(request, CancelBody)
        return JSONResponse(await self._service.jobs.cancel(body.signed))

    async def add_blob(self, request: Request) -> Response:
        blobs = self._service.node.blobs
        added = await blobs.add_stream(request.stream())
        retention.mark_used(blobs, added.cid)  # it may have been here for long
        return JSONResponse({"cid": added.cid, "size": added.size}, status_code=201)

    async def blob(self, request: Request) -> Response:
        return self._stream(request.path_params["cid"])

    def _stream(self, cid: str) -> Response:
        blobs = self._service.node.blobs
        try:
            size = blobs.size(cid)
        except BlobMissing as error:
            raise ApiError("not-found", str(error), "cid") from None
        except ValueError as error:
            raise ApiError("bad-request", str(error), "cid") from None

        async def pieces() -> AsyncIterator[bytes]:
            for offset in range(0, size, _PIECE_BYTES):
                yield await blobs.read(cid, offset, _PIECE_BYTES)

        headers = {"content-length": str(size), "x-cid": cid}
        return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)


class _TokenRequired:
    """Lets nobody past without the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not hmac.compare_digest(_token_in(scope), self._token):
            error = ApiError("unauthorized", "this needs the node's token; it stands in api.json in the node's home")
            await _response(error)(scope, receive, send)
        elif scope["type"] != "websocket":
            await self._app(scope, receive, send)


def _token_in(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name.lower() == b"authorization":
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":
                return bytes(credentials.strip())
            if scheme.lower() == b"basic":
                try:
                    return base64.b64decode(credentials.strip(), validate=True).partition(b":")[0]
                except (binascii.Error, ValueError):
                    return b""
    return b""


def _guarded(endpoint: Endpoint) -> Endpoint:
    """``endpoint`` with every exception made into an answer."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ApiError as error:
            return _response(error)
        except StoreFull as error:
            return _response(ApiError("too-large", str(error)))
        except StoreFailed as error:  # the disk, most likely: full or broken
            return _response(ApiError("internal", str(error)))
        except ClientDisconnect:
            return _response(ApiError("bad-request", "the connection ended in the middle of the request"))
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            return _response(ApiError("internal", "a fault of the node itself: its log says more"))

    return answer


def _response(error: ApiError) -> Response:
    return JSONResponse(error.as_json(), status_code=STATUS[error.code])


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail.lower()}"
    return JSONResponse(ApiError("not-found", message).as_json(), status_code=error.status_code)


async def _body(request: Request, kind: type[T]) -> T:
    """The request's JSON body, read no further than allowed."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > requests.REQUEST_BYTES_MAX:
            raise ApiError("too-large", f"the request has more than {requests.REQUEST_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's own errors, and text that is not UTF-8
        raise _bad_arguments(error) from None


def _arguments(kind: type[T], values: dict[str, Any], *, strict: bool = True) -> T:
    try:
        return msgspec.convert(values, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise _bad_arguments(error) from None


def _job(request: Request) -> tuple[str, PeerId]:
    wanted = _arguments(requests.GetJob, {**request.query_params, "job": request.path_params["job"]})
    return wanted.job, PeerId(wanted.submitter)


def _bad_arguments(error: Exception) -> ApiError:
    sentence, _, place = str(error).partition(" - at `$.")
    return ApiError("bad-request", sentence, place.rstrip("`"))
