"""The API for submitters without a node: one request and one answer per libp2p stream, both JSON in one frame.

A stranger may hand in a job, ask for one and fetch its output; the node's own affairs are not offered here. Blobs do
not travel in these frames: the node fetches a job's files from the client, and the client the output from the node,
over the blob protocol.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import trio

from meshnode.api import requests
from meshnode.api.errors import ApiError
from meshnode.api.service import Service
from meshnode.net.framing import FrameDecoder, encode_frame
from meshnode.net.network import Network
from meshnode.net.streams import Stream
from protocol.identity import PeerId
from protocol.limits import DEFAULT_LIMITS

log = logging.getLogger(__name__)

PROTOCOL = "/meshnode/api/1"
ANSWER_BYTES_MAX = 64 << 20
REQUESTS_AT_ONCE = 32
REQUESTS_PER_PEER = 4
READ_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 600.0


class Gateway:
    """Answers strangers."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._slots = trio.CapacityLimiter(REQUESTS_AT_ONCE)

    def register(self, network: Network) -> None:
        network.handle(PROTOCOL, self.serve, max_streams_per_peer=REQUESTS_PER_PEER)

    async def serve(self, stream: Stream) -> None:
        """Answer the one request of ``stream``."""
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await self._send(stream, ApiError("refused", "this node is busy, try again later").as_json())
            return
        try:
            with trio.move_on_after(ANSWER_TIMEOUT_S):
                await self._send(stream, await self._answer(stream))
        finally:
            self._slots.release()

    async def _answer(self, stream: Stream) -> dict[str, Any]:
        try:
            with trio.fail_after(READ_TIMEOUT_S):
                frame = await read_frame(stream, requests.REQUEST_BYTES_MAX)
            request: requests.AnyRequest = msgspec.json.decode(frame, type=requests.AnyRequest)
            return {"result": await self._carry_out(request, stream.peer)}
        except ApiError as error:
            return error.as_json()
        except (ValueError, RecursionError) as error:  # msgspec's own errors, and text that is not UTF-8
            return ApiError("bad-request", str(error)).as_json()
        except trio.TooSlowError:
            return ApiError("bad-request", "the request did not arrive in time").as_json()

    async def _carry_out(self, request: requests.AnyRequest, client: str) -> dict[str, Any]:
        jobs, models = self._service.jobs, self._service.models
        match request:
            case requests.Propose(durability=durability):
                return await jobs.propose(durability)
            case requests.Resolve(model=model):
                return await models.resolve(model)
            case requests.Submit(signed=signed, sources=sources):
                return await jobs.submit(signed, (client, *sources), stranger=True)
            case requests.GetJob(job=job, submitter=submitter):
                return await jobs.one(job, PeerId(submitter))
            case requests.GetDetails(job=job, submitter=submitter):
                return await jobs.details(job, PeerId(submitter))
            case requests.GetOutput(job=job, submitter=submitter, files=files):
                bytes_max = DEFAULT_LIMITS.copy_bytes_max
                return await jobs.output(job, PeerId(submitter), files=files, bytes_max=bytes_max)
            case requests.Cancel(signed=signed):
                return await jobs.cancel(signed)

    async def _send(self, stream: Stream, answer: dict[str, Any]) -> None:
        data = msgspec.json.encode(answer)
        if len(data) > ANSWER_BYTES_MAX:
            data = msgspec.json.encode(ApiError("too-large", "the answer is too large for one message").as_json())
        await stream.write(encode_frame(data))


async def read_frame(stream: Stream, bytes_max: int) -> bytes:
    """The one frame that comes on ``stream``. Raises a NetworkError."""
    decoder = FrameDecoder(bytes_max)
    while True:
        data = await stream.read_some()
        if frames := decoder.feed(data):
            return frames[0]
        if not data:
            raise ApiError("bad-request", "the stream ended in the middle of a message")
