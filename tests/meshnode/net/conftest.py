"""Networks on loopback, started and closed by the test that uses them."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from subprocess import PIPE

import pytest
import trio

from meshnode.net import Network, NetworkLimits

_seeds = count(1)

# Says where it listens, then serves: /echo/1 sends back, /sink/1 never reads.
_CHILD = """
import sys, trio
from meshnode.net import Network
async def echo(stream):
    while data := await stream.read_some():
        await stream.write(data)
async def sink(stream):
    await trio.sleep_forever()
async def main():
    async with Network.start(sys.argv[1].encode().rjust(32)) as network:
        network.handle("/echo/1", echo)
        network.handle("/sink/1", sink)
        print(network.addresses[0], flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


def fresh_seed() -> bytes:
    return next(_seeds).to_bytes(32, "big")


async def wait_until(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds; the limit only keeps a broken test from hanging."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 (there is nothing to wait on)
            await trio.sleep(0.01)


@pytest.fixture
def until() -> Callable:
    return wait_until


@pytest.fixture
def seed() -> Callable[[], bytes]:
    return fresh_seed


@pytest.fixture
def networks() -> Callable:
    """`async with networks(3) as (a, b, c)`: networks that know each other's addresses."""

    @asynccontextmanager
    async def start(number: int, limits: NetworkLimits | None = None) -> AsyncIterator[list[Network]]:
        async with AsyncExitStack() as stack:
            started = [
                await stack.enter_async_context(Network.start(fresh_seed(), limits=limits)) for _ in range(number)
            ]
            for one in started:
                for other in started:
                    assert one.learn_addresses(other.peer_id, other.addresses)
            yield started

    return start


@pytest.fixture
def child() -> Callable:
    """`async with child() as (process, address)`: a network in a process of its own, killed at the end."""

    @asynccontextmanager
    async def start() -> AsyncIterator[tuple[trio.Process, str]]:
        async with trio.open_nursery() as nursery:
            command = [sys.executable, "-c", _CHILD, str(next(_seeds))]
            process = await nursery.start(partial(trio.run_process, command, stdout=PIPE, check=False))
            try:
                assert process.stdout is not None
                line = b""
                while not line.endswith(b"\n"):
                    part = await process.stdout.receive_some(1024)
                    assert part, "the child ended before it listened"
                    line += part
                yield process, line.decode().strip()
            finally:
                process.kill()

    return start
