"""Control links between real hosts: order, bounds, and that one bad remote costs nobody else."""

import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio

from meshnode.net import (
    FrameReceived,
    GarbageReceived,
    LinkDown,
    LinkEvent,
    LinkLimits,
    Links,
    LinkUp,
    Network,
    NetworkLimits,
    SendDropped,
    StreamLost,
    encode_frame,
)

CONTROL = "/control/1"


@pytest.fixture
def linked(networks: Callable) -> Callable:
    """`async with linked(2) as ((net_a, links_a), (net_b, links_b))`."""

    @asynccontextmanager
    async def start(
        number: int, limits: LinkLimits | None = None, network_limits: NetworkLimits | None = None
    ) -> AsyncIterator[list[tuple[Network, Links]]]:
        async with networks(number, network_limits) as started, AsyncExitStack() as stack:
            yield [
                (
                    network,
                    await stack.enter_async_context(Links.run(network, CONTROL, rng=random.Random(1), limits=limits)),
                )
                for network in started
            ]

    return start


async def next_event(links: Links, kind: type[LinkEvent] | None = None) -> LinkEvent:
    """The next event, or the next of one kind."""
    with trio.fail_after(30):
        async for event in links.events:
            if kind is None or isinstance(event, kind):
                return event
    raise AssertionError("the events ended")


async def send_all(links: Links, peer: str, frames: list[bytes]) -> None:
    for frame in frames:
        while not links.send_nowait(peer, frame):  # noqa: ASYNC110 (that is how one waits for an outbox)
            await trio.sleep(0.001)


async def frames_from(links: Links, peer: str, count: int) -> list[bytes]:
    received: list[bytes] = []
    while len(received) < count:
        event = await next_event(links, FrameReceived)
        assert isinstance(event, FrameReceived)
        if event.peer == peer:
            received.append(event.frame)
    return received


@pytest.mark.trio
async def test_ten_thousand_frames_each_way_arrive_in_order(linked: Callable) -> None:
    frames = [index.to_bytes(4, "big") * 20 for index in range(10_000)]
    async with linked(2) as ((a, links_a), (b, links_b)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, links_a, b.peer_id, frames)
            nursery.start_soon(send_all, links_b, a.peer_id, frames)
            for links, peer in ((links_a, b.peer_id), (links_b, a.peer_id)):

                async def check(links: Links = links, peer: str = peer) -> None:
                    assert await frames_from(links, peer, len(frames)) == frames

                nursery.start_soon(check)


@pytest.mark.trio
async def test_a_link_comes_up_carries_frames_and_goes_down(linked: Callable, until: Callable) -> None:
    async with linked(2) as ((a, links_a), (b, links_b)):
        for frame in (b"", b"one", bytes(LinkLimits().max_frame)):
            assert links_a.send_nowait(b.peer_id, frame)
        links_a.close(b.peer_id)
        assert await next_event(links_a) == LinkUp(b.peer_id)
        assert await next_event(links_a) == LinkDown(b.peer_id, "closed by us")
        assert [await next_event(links_b) for _ in range(5)] == [
            LinkUp(a.peer_id),
            FrameReceived(a.peer_id, b""),
            FrameReceived(a.peer_id, b"one"),
            FrameReceived(a.peer_id, bytes(LinkLimits().max_frame)),
            LinkDown(a.peer_id, "closed by the remote"),
        ]
        # Both forget the other once there is nothing to remember.
        await until(lambda: links_a._remotes == {} and links_b._remotes == {})


@pytest.mark.trio
async def test_a_newer_stream_waits_for_what_came_on_the_older_one(linked: Callable, seed: Callable) -> None:
    async with linked(1, LinkLimits(events=1)) as ((a, links),), Network.start(seed()) as b:
        b.learn_addresses(a.peer_id, a.addresses)
        numbers = [bytes([index]) for index in range(40)]
        streams = []
        for part in (numbers[:20], numbers[20:]):
            streams.append(stream := await b.open_stream(a.peer_id, CONTROL))
            await stream.write(b"".join(map(encode_frame, part)))
        await streams[0].close_write()
        assert await frames_from(links, b.peer_id, 40) == numbers
        for stream in streams:
            await stream.reset()


@pytest.mark.trio
async def test_a_stream_that_a_newer_one_replaces_is_given_up(linked: Callable, seed: Callable) -> None:
    async with linked(1) as ((a, links),), Network.start(seed()) as b:
        b.learn_addresses(a.peer_id, a.addresses)
        older = await b.open_stream(a.peer_id, CONTROL)  # and never closed, as by a machine that lost power
        newer = await b.open_stream(a.peer_id, CONTROL)
        await newer.write(encode_frame(b"back again"))
        assert await frames_from(links, b.peer_id, 1) == [b"back again"]
        for stream in (older, newer):
            await stream.reset()


@pytest.mark.trio
async def test_an_idle_link_closes_unless_it_is_kept(linked: Callable) -> None:
    async with linked(3, LinkLimits(idle_s=0.2)) as ((_, links_a), (b, _), (c, _)):
        links_a.keep(b.peer_id, True)
        for peer in (b.peer_id, c.peer_id):
            links_a.send_nowait(peer, b"x")
        assert await next_event(links_a, LinkDown) == LinkDown(c.peer_id, "idle")
        await trio.sleep(0.5)
        with pytest.raises(trio.WouldBlock):
            links_a.events.receive_nowait()
        links_a.keep(b.peer_id, False)
        assert await next_event(links_a, LinkDown) == LinkDown(b.peer_id, "idle")


@pytest.mark.trio
async def test_a_remote_that_never_reads_stops_nobody_else(linked: Callable) -> None:
    async def never_read(stream: object) -> None:
        await trio.sleep_forever()

    async with linked(2, LinkLimits(outbox_bytes=1_000_000)) as ((a, links_a), (b, links_b)):
        async with Network.start(b"deaf".rjust(32)) as deaf:
            deaf.handle(CONTROL, never_read)
            a.learn_addresses(deaf.peer_id, deaf.addresses)
            with trio.fail_after(20):
                refused = 0
                while refused < 20:  # its window, then its outbox is full
                    refused += not links_a.send_nowait(deaf.peer_id, bytes(100_000))
                    await trio.sleep(0.002)
                frames = [bytes([index]) for index in range(100)]
                await send_all(links_a, b.peer_id, frames)
                assert await frames_from(links_b, a.peer_id, 100) == frames


@pytest.mark.trio
async def test_a_full_event_channel_holds_the_senders_and_loses_nothing(linked: Callable, until: Callable) -> None:
    frames = [index.to_bytes(4, "big") * 2000 for index in range(400)]
    async with linked(2, LinkLimits(events=4, outbox_bytes=1_000_000)) as ((a, links_a), (b, links_b)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, links_a, b.peer_id, frames)
            await until(lambda: links_b.events.statistics().current_buffer_used == 4)
            assert links_b.send_nowait(a.peer_id, b"a reader that waits does not stop the writer")
            assert await frames_from(links_a, b.peer_id, 1)
            assert await frames_from(links_b, a.peer_id, len(frames)) == frames


@pytest.mark.trio
async def test_a_remote_over_its_rate_waits_and_another_does_not(linked: Callable) -> None:
    limits = LinkLimits(inbound_frames_per_s=100)
    async with linked(3, limits) as ((a, links_a), (_, links_b), (c, links_c)):
        start = trio.current_time()
        await send_all(links_a, c.peer_id, [b"flood"] * 160)
        await send_all(links_b, c.peer_id, [b"calm"] * 10)
        peers = []
        while len(peers) < 170:
            event = await next_event(links_c, FrameReceived)
            assert isinstance(event, FrameReceived)
            peers.append(event.peer)
        # A burst of one second's worth is free, the other 60 are not; a slow machine only makes it longer.
        assert trio.current_time() - start >= 0.6
        assert peers[-1] == a.peer_id


@pytest.mark.trio
@pytest.mark.parametrize(
    ("garbage", "complaint"),
    [
        (random.Random(7).randbytes(5000), "frame"),
        (b"\xff\xff\xff\x7f", "over the limit"),
        (b"\x80" * 2_000_000, "longer than 4 bytes"),
        (b"\x81\x00", "shortest form"),
    ],
    ids=["random", "oversize", "endless length", "overlong"],
)
async def test_garbage_is_reported_closes_the_link_and_harms_nobody(
    linked: Callable, garbage: bytes, complaint: str
) -> None:
    async with linked(2) as ((a, links_a), (b, links_b)):
        links_b.send_nowait(a.peer_id, b"hello")
        assert await frames_from(links_a, b.peer_id, 1)
        async with Network.start(b"liar".rjust(32)) as liar:
            liar.learn_addresses(a.peer_id, a.addresses)
            stream = await liar.open_stream(a.peer_id, CONTROL)
            await stream.write(encode_frame(b"honest so far"))
            with suppress(StreamLost):  # the reset may be here before all is written
                await stream.write(garbage)
            event = await next_event(links_a, GarbageReceived)
            assert isinstance(event, GarbageReceived)
            assert event.peer == liar.peer_id
            assert complaint in event.reason
            assert await next_event(links_a, LinkDown) == LinkDown(liar.peer_id, event.reason)
            await stream.reset()
        links_b.send_nowait(a.peer_id, b"again")
        assert await frames_from(links_a, b.peer_id, 1) == [b"again"]


@pytest.mark.trio
async def test_frames_that_cannot_be_delivered_are_reported(linked: Callable, seed: Callable, until: Callable) -> None:
    limits = LinkLimits(dial_attempts=3, backoff_s=0.01)
    async with linked(1, limits) as ((a, links),):
        async with Network.start(seed()) as gone:
            pass
        for frame in (b"1", b"2"):
            assert links.send_nowait(gone.peer_id, frame)
        event = await next_event(links)
        assert isinstance(event, SendDropped)
        assert (event.peer, event.count) == (gone.peer_id, 2)
        assert "no address" in event.reason
        a.learn_addresses(gone.peer_id, gone_addresses := ["/ip4/127.0.0.1/tcp/1"])
        assert links.send_nowait(gone.peer_id, b"3")
        event = await next_event(links)
        assert isinstance(event, SendDropped)
        assert gone_addresses[0] in event.reason
        assert links.send_nowait("not a peer id", b"4")
        assert isinstance(await next_event(links), SendDropped)
        await until(lambda: links._remotes == {})


@pytest.mark.trio
async def test_a_killed_remote_takes_the_link_down_and_a_restarted_one_gets_frames(
    linked: Callable, seed: Callable, child: Callable
) -> None:
    identity = seed()
    async with linked(1) as ((a, links),):
        async with child() as (process, address):
            peer = await a.connect(address)
            links.send_nowait(peer, b"nobody handles control there")
            assert isinstance(await next_event(links), SendDropped)
            process.send_signal(signal.SIGKILL)
        async with Network.start(identity) as b, Links.run(b, CONTROL, rng=random.Random(2)) as links_b:
            where = b.addresses[0]
            a.learn_addresses(b.peer_id, [where])
            links.send_nowait(b.peer_id, b"1")
            assert await frames_from(links_b, a.peer_id, 1) == [b"1"]
        assert isinstance(await next_event(links, LinkDown), LinkDown)
        port = where.split("/")[4]
        async with (
            Network.start(identity, listen=[f"/ip4/127.0.0.1/tcp/{port}"]) as again,
            Links.run(again, CONTROL, rng=random.Random(3)) as links_again,
        ):
            links.send_nowait(b.peer_id, b"2")
            assert await frames_from(links_again, a.peer_id, 1) == [b"2"]


@pytest.mark.trio
async def test_the_outbox_and_the_number_of_remotes_are_bounded(linked: Callable) -> None:
    async with linked(1, LinkLimits(outbox_frames=3, max_remotes=1, max_frame=10)) as ((_, links),):
        peer, other = "peer", "other"
        assert [links.send_nowait(peer, b"x") for _ in range(4)] == [True, True, True, False]
        assert not links.send_nowait(other, b"x")
        with pytest.raises(ValueError, match="over the limit of 10"):
            links.send_nowait(peer, bytes(11))


@pytest.mark.trio
async def test_leaving_ends_the_events_and_every_task(networks: Callable, until: Callable) -> None:
    async with networks(2) as (a, b):
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with Links.run(a, "/other/1", rng=random.Random(1)) as one:
            async with Links.run(b, "/other/1", rng=random.Random(1), limits=LinkLimits(events=1)) as two:
                await send_all(one, b.peer_id, [b"x"] * 100)
                await send_all(two, a.peer_id, [b"x"] * 100)
                assert await frames_from(one, b.peer_id, 100)
        with trio.fail_after(10):
            async for _ in two.events:
                pass
        await a.disconnect(b.peer_id)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)
