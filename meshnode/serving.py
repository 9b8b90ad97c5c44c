"""A node together with everything that answers its clients: the HTTP API and the libp2p gateway."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import trio

from meshnode.api.gateway import Gateway
from meshnode.api.http import serve_http
from meshnode.api.service import Service
from meshnode.config import Config
from meshnode.keystore import write_private
from meshnode.node import Node

API_FILE = "api.json"
_TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True)
class Serving:
    """A node that is up."""

    node: Node
    api: str
    """URL of its HTTP API, with the token as user name."""


@asynccontextmanager
async def serve(config: Config) -> AsyncIterator[Serving]:
    """Run a node and its API until the block is left. ``api.json`` in the home says where the API is, meanwhile.

    Raises what ``Node.start`` does, and OSError for an API port that is taken.
    """
    async with Node.start(config) as node, trio.open_nursery() as nursery:
        service = Service(node)
        Gateway(service).register(node.network)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        url = await nursery.start(
            lambda task_status: serve_http(service, token, port=config.api_port, task_status=task_status)
        )
        found = {"url": url, "token": token, "node_id": node.peer_id, "pid": os.getpid()}
        write_private(config.home / API_FILE, json.dumps(found).encode() + b"\n")
        try:
            yield Serving(node, f"http://{token}@{urlsplit(url).netloc}")
        finally:
            (config.home / API_FILE).unlink(missing_ok=True)
            nursery.cancel_scope.cancel()
