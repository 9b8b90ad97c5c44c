"""Networks between real hosts: streams, handlers, dialling, and what happens when the other side misbehaves."""

import signal
from collections.abc import Callable

import pytest
import trio

from meshnode.net import (
    BadAddress,
    DialFailed,
    ListenFailed,
    Network,
    NetworkLimits,
    NoAddress,
    Stream,
    StreamLost,
    StreamTimedOut,
)

ECHO = "/echo/1"


async def echo(stream: Stream) -> None:
    while data := await stream.read_some():
        await stream.write(data)


@pytest.mark.trio
async def test_a_stream_carries_bytes_both_ways_and_ends_cleanly(networks: Callable) -> None:
    async with networks(2) as (a, b):
        b.handle(ECHO, echo)
        blob = bytes(range(256)) * 4000
        async with await a.open_stream(b.peer_id, ECHO) as stream:
            assert (stream.peer, stream.protocol) == (b.peer_id, ECHO)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.write, blob)
                assert await stream.read_exactly(len(blob)) == blob
            await stream.close_write()
            assert await stream.read_some() == b""
            assert await stream.read_some() == b""


@pytest.mark.trio
async def test_a_stream_that_ends_too_early_is_lost(networks: Callable) -> None:
    async def short(stream: Stream) -> None:
        await stream.write(b"abc")

    async with networks(2) as (a, b):
        b.handle("/short/1", short)
        async with await a.open_stream(b.peer_id, "/short/1") as stream:
            with pytest.raises(StreamLost, match="after 3 of 5 bytes"):
                await stream.read_exactly(5)


@pytest.mark.trio
async def test_a_killed_process_is_a_loss_and_not_an_end(networks: Callable, child: Callable, until: Callable) -> None:
    async with networks(1) as (a,), child() as (process, address):
        peer = await a.connect(address)
        stream = await a.open_stream(peer, ECHO)
        await stream.write(b"hello")
        assert await stream.read_exactly(5) == b"hello"
        process.send_signal(signal.SIGKILL)
        with pytest.raises(StreamLost), trio.fail_after(20):
            await stream.read_some()
        await until(lambda: a.connections() == [])


@pytest.mark.trio
async def test_a_raising_handler_costs_its_stream_only(networks: Callable, caplog: pytest.LogCaptureFixture) -> None:
    async def raising(stream: Stream) -> None:
        await stream.read_some()
        raise RuntimeError("a bug")

    async with networks(2) as (a, b):
        b.handle(ECHO, echo)
        b.handle("/raises/1", raising)
        kept = await a.open_stream(b.peer_id, ECHO)
        async with await a.open_stream(b.peer_id, "/raises/1") as stream:
            await stream.write(b"x")
            with pytest.raises(StreamLost):
                await stream.read_some()
        async with kept:
            await kept.write(b"y")
            assert await kept.read_exactly(1) == b"y"
    assert "a bug" in caplog.text


@pytest.mark.trio
async def test_streams_of_one_peer_and_protocol_are_capped(networks: Callable) -> None:
    async with networks(3) as (a, b, c):
        c.handle(ECHO, echo, max_streams_per_peer=2)
        held = [await a.open_stream(c.peer_id, ECHO) for _ in range(2)]

        async def one_more() -> None:
            await (await a.open_stream(c.peer_id, ECHO)).read_exactly(1)

        with pytest.raises(StreamLost):
            await one_more()
        for network in (a, b):  # the ones that are open work, and another peer is served
            stream = held[0] if network is a else await b.open_stream(c.peer_id, ECHO)
            await stream.write(b"x")
            assert await stream.read_exactly(1) == b"x"
            await stream.aclose()
        async with await a.open_stream(c.peer_id, ECHO) as again:  # a place was given back
            await again.write(b"x")
            assert await again.read_exactly(1) == b"x"
        await held[1].reset()


@pytest.mark.trio
async def test_dials_from_both_ends_at_once_both_work(networks: Callable) -> None:
    async with networks(2) as (a, b):
        answers = []

        async def ask(one: Network, other: Network) -> None:
            async with await one.open_stream(other.peer_id, ECHO) as stream:
                await stream.write(one.peer_id.encode())
                answers.append(await stream.read_exactly(len(one.peer_id)))

        for network in (a, b):
            network.handle(ECHO, echo)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(ask, a, b)
                    nursery.start_soon(ask, b, a)
        assert len(answers) == 10
        await a.disconnect(b.peer_id)
        assert a.connections() == []


@pytest.mark.trio
async def test_the_second_address_is_tried_when_the_first_is_dead(networks: Callable, seed: Callable) -> None:
    async with networks(1) as (a,), Network.start(seed()) as b:
        assert a.learn_addresses(b.peer_id, ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.2/tcp/1", *b.addresses])
        b.handle(ECHO, echo)
        async with await a.open_stream(b.peer_id, ECHO) as stream:
            await stream.write(b"x")


@pytest.mark.trio
async def test_what_cannot_be_dialled_is_said(networks: Callable, seed: Callable) -> None:
    async with networks(2) as (a, b):
        async with Network.start(seed()) as gone:
            stranger = gone.peer_id
        with pytest.raises(NoAddress, match=stranger):
            await a.open_stream(stranger, ECHO)
        with pytest.raises(DialFailed, match="this node itself"):
            await a.open_stream(a.peer_id, ECHO)
        with pytest.raises(BadAddress, match="is not a peer id"):
            await a.open_stream("nobody", ECHO)
        with pytest.raises(BadAddress, match="needs /p2p/PEER"):
            await a.connect("/ip4/127.0.0.1/tcp/1")
        with pytest.raises(BadAddress, match="cannot be dialled"):
            await a.connect(f"/ip4/0.0.0.0/tcp/1/p2p/{stranger}")
        # Another peer answers where the stranger was said to be.
        where = b.addresses[0].replace(b.peer_id, stranger)
        with pytest.raises(DialFailed):
            await a.connect(where)
        assert a.connections() == []


@pytest.mark.trio
async def test_a_silent_port_does_not_hold_the_dialler(networks: Callable) -> None:
    async def say_nothing(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    elsewhere = "12D3KooWMbbPVGsZYh3ChQjue712NHHGNybRRXwnuSpezYjGbCDS"
    async with networks(1, NetworkLimits(dial_timeout_s=0.3)) as (a,):
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listener.socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, say_nothing, [listener])
            with pytest.raises(DialFailed, match="no answer within"):
                await a.connect(f"/ip4/127.0.0.1/tcp/{port}/p2p/{elsewhere}")
            nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_giving_up_on_a_stream_leaves_the_connection_whole(networks: Callable, child: Callable) -> None:
    async with networks(1) as (a,), child() as (process, address):
        peer = await a.connect(address)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(StreamTimedOut):
            await a.open_stream(peer, ECHO, timeout_s=0.2)
        with trio.move_on_after(0.1):
            await a.open_stream(peer, ECHO)
        process.send_signal(signal.SIGCONT)
        async with await a.open_stream(peer, ECHO) as stream:
            await stream.write(b"x")
            assert await stream.read_exactly(1) == b"x"


@pytest.mark.trio
async def test_giving_up_at_any_moment_leaves_no_stream_behind(networks: Callable, until: Callable) -> None:
    async with networks(2) as (a, b):
        b.handle(ECHO, echo, max_streams_per_peer=1000)
        await a.connect(b.addresses[0])
        (conn,) = a._swarm.get_connections()
        await until(lambda: not conn.muxed_conn.streams)
        free = conn.muxed_conn.stream_backlog_semaphore.value
        for moment in range(80):
            async with trio.open_nursery() as nursery:

                async def open_and_close() -> None:
                    async with await a.open_stream(b.peer_id, ECHO):
                        pass

                nursery.start_soon(open_and_close)
                for _ in range(moment):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await until(lambda: not conn.muxed_conn.streams)
        assert conn.muxed_conn.stream_backlog_semaphore.value == free
        assert a._swarm.get_connections() == [conn]


@pytest.mark.trio
async def test_addresses_are_concrete_or_as_announced(seed: Callable) -> None:
    async with Network.start(seed(), listen=["/ip4/0.0.0.0/tcp/0"]) as network:
        assert network.addresses
        for address in network.addresses:
            assert "/0.0.0.0/" not in address
            assert "/tcp/0/" not in address
            assert address.endswith(f"/p2p/{network.peer_id}")
    announced = "/dns4/node.example/tcp/4001"
    async with Network.start(seed(), announce=[announced]) as network:
        assert network.addresses == [f"{announced}/p2p/{network.peer_id}"]


@pytest.mark.trio
@pytest.mark.parametrize(
    ("listen", "kind"),
    [
        ("nonsense", BadAddress),
        ("/dns4/node.example/tcp/0", BadAddress),
        ("/ip4/192.0.2.1/tcp/0", ListenFailed),
    ],
)
async def test_what_cannot_be_listened_on_is_refused(listen: str, kind: type[Exception], seed: Callable) -> None:
    with pytest.raises(kind):
        async with Network.start(seed(), listen=[listen]):
            pass


@pytest.mark.trio
async def test_a_seed_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        async with Network.start(b"short"):
            pass


@pytest.mark.trio
async def test_junk_on_the_port_harms_nobody(networks: Callable) -> None:
    async with networks(2) as (a, b):
        b.handle(ECHO, echo)
        port = int(b.addresses[0].split("/")[4])
        for junk in (
            b"GET / HTTP/1.1\r\n\r\n",
            bytes(5000),
            b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\xff\xff\xff\xff",
        ):
            async with await trio.open_tcp_stream("127.0.0.1", port) as sock:
                await sock.send_all(junk)
        async with await a.open_stream(b.peer_id, ECHO) as stream:
            await stream.write(b"x")
            assert await stream.read_exactly(1) == b"x"
