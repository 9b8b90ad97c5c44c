"""The test bed: what it says is lost is lost, nothing else is, and nothing of it stays."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from meshnode.devmesh import wait_for
from tests.e2e.testbed import namespaces
from tests.e2e.testbed.network import Host, Network

MakeNetwork = Callable[..., AbstractContextManager[Network]]
PORT = 9


def datagrams(source: Host, target: Host, count: int = 1) -> int:
    """How many of so many datagrams arrive."""
    with target.inside():
        receiving = socket.socket(type=socket.SOCK_DGRAM)
    with source.inside():
        sending = socket.socket(type=socket.SOCK_DGRAM)
    arrived = 0
    with receiving, sending:
        receiving.bind((target.address, PORT))
        for _ in range(count):
            sending.sendto(b"x", (target.address, PORT))
            arrived += _take(receiving, 0.0)
        return arrived + _take(receiving, 0.3)


def _take(receiving: socket.socket, within_s: float) -> int:
    taken = 0
    while select.select([receiving], [], [], within_s)[0]:
        receiving.recv(10)
        taken += 1
    return taken


def test_what_is_cut_is_cut_until_it_heals(network: MakeNetwork) -> None:
    with network(hosts=3) as made:
        one, two, three = made.hosts
        assert datagrams(one, two) == datagrams(two, one) == 1
        with made.cut([one], [two, three]):
            assert datagrams(one, two) == datagrams(two, one) == datagrams(three, one) == 0
            assert datagrams(two, three) == 1
        with made.cut([one], [two], one_way=True):
            assert datagrams(one, two) == 0
            assert datagrams(two, one) == 1
            with made.cut([two], [one]):
                assert datagrams(two, one) == 0
            assert datagrams(one, two) == 0, "one cut healed another"
            assert datagrams(two, one) == 1
        assert datagrams(one, two) == datagrams(three, one) == 1


def test_a_share_of_the_packets_is_lost(network: MakeNetwork) -> None:
    with network(hosts=2) as made:
        one, two = made.hosts
        assert datagrams(one, two, 200) == 200
        with two.dropping(share=0.3):
            assert 600 < datagrams(one, two, 1000) < 800
            assert datagrams(two, one, 200) == 200
        assert datagrams(one, two, 200) == 200


def test_a_host_sends_no_faster_than_its_rate(network: MakeNetwork) -> None:
    with network(hosts=2, rate="8mbit") as made:
        one, two = made.hosts
        with two.inside():
            server = socket.create_server((two.address, PORT))
        with one.inside():
            sending = socket.create_connection((two.address, PORT))
        receiving, _ = server.accept()
        with server, sending, receiving:
            start = time.monotonic()
            sending.setblocking(False)
            left, unread = 1_000_000, 1_000_000
            while unread:
                readable, writable, _ = select.select([receiving], [sending] if left else [], [], 10)
                if writable:
                    left -= sending.send(bytes(min(left, 10_000)))
                if readable:
                    unread -= len(receiving.recv(100_000))
            assert 0.8 < time.monotonic() - start < 8


CRASHING = """
import os, signal, subprocess, sys
from tests.e2e.testbed.network import Network
with Network.make(hosts=2) as network:
    with network.hosts[1].inside():
        sleeper = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
    sleeper.send_signal(signal.SIGSTOP)
    print(network.number, sleeper.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_removed_by_the_next(network: MakeNetwork) -> None:
    with network(hosts=0):  # skips where there can be none
        pass
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run(
        [sys.executable, "-c", CRASHING], stdout=subprocess.PIPE, check=False, env=environment, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    number, sleeper = map(int, killed.stdout.split())
    assert len(namespaces.names_with(f"bed{number}-")) == 3
    with network(hosts=1) as made:
        assert made.number == number
        assert wait_for(lambda: not Path(f"/proc/{sleeper}").exists(), 10)
        with network(hosts=1) as other:
            assert other.number != number, "two networks at a time have the same hosts"
    assert not namespaces.names_with(f"bed{number}-")
