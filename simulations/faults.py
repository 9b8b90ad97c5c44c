"""What can go wrong in a world, and how often it does.

When each fault strikes is decided in ``decisions.py``; what then happens to machines in ``disruptions.py``, to messages
and routes in ``network.py`` and ``routes.py``; how liars lie in ``dishonest.py``.
"""

from __future__ import annotations

import msgspec


class FaultRates(msgspec.Struct, frozen=True, kw_only=True):
    """How likely each kind of fault is; 0 switches it off. Shares are per opportunity, the rest as stated."""

    # -- messages and connections
    drop: float = 0.0
    """Share of control messages that an outbox drops."""
    duplicate: float = 0.0
    """Share of control messages that arrive twice."""
    stall: float = 0.0
    """Share of control messages that hold up their connection for up to two seconds."""
    reorder: float = 0.0
    """Share of control messages that overtake what is on its way on the same connection."""
    replay: float = 0.0
    """Share of control messages that arrive once more, seconds to a minute later."""
    cut_per_s: float = 0.0
    """Connections cut in the whole world, per second."""
    partition_per_s: float = 0.0
    """Partitions: a group of machines and the rest cannot hear each other for a while."""
    one_way_per_s: float = 0.0
    """Half partitions: what a group of machines sends to the rest vanishes for a while; it hears all."""
    spike_per_s: float = 0.0
    """Times in which the whole network is several times as slow."""
    # -- crashes and disks
    crash_per_s: float = 0.0
    """Machines that crash in the whole world, per second."""
    crash_unsynced: float = 0.0
    """Share of calls with records after which the machine crashes before any record is synced."""
    torn_write: float = 0.0
    """Share of calls with records in which the machine crashes while they are written: a few are on the disk."""
    crash_midway: float = 0.0
    """Share of calls with records after which the machine crashes between the effects that come after the sync."""
    power_cut_per_s: float = 0.0
    """Crashes of all machines at once, per second."""
    disk_full_per_s: float = 0.0
    """Disks that are full for a while, per second: the next call with records ends the node."""
    gone: float = 0.0
    """Share of a single machine's crashes after which it never comes back."""
    wipe: float = 0.0
    """Share of a single machine's crashes that lose the disk: blobs, journal, store id. The key is kept."""
    stale_incarnation: float = 0.0
    """Share of a single machine's crashes that lose the journal, and with it the counter of incarnations."""
    lost_write: float = 0.0
    """Share of a single machine's crashes that take back the last few syncs: the disk had lied."""
    long_down: float = 0.0
    """Share of a single machine's crashes after which it stays down for minutes."""
    # -- machines that live
    slow_per_s: float = 0.0
    """Machines that for a while need up to 0.8 s for each event, per second."""
    pause_per_s: float = 0.0
    """Machines that stand still for up to twenty seconds, per second."""
    clock_jump_per_s: float = 0.0
    """Wall clocks that jump by up to an hour, and back after a while, per second."""
    skew: float = 0.0
    """Share of machines whose wall clock is off by up to ten seconds."""
    drift: float = 0.0
    """Share of machines whose wall clock runs up to 5 % fast or slow."""
    mass_leave_per_s: float = 0.0
    """A third of the machines leaves in good order, and comes back later; per second."""
    mass_join_per_s: float = 0.0
    """A group of new machines joins, per second."""
    # -- work
    run_failure: float = 0.0
    """Share of runs that fail by the task's own fault."""
    machine_failure: float = 0.0
    """Share of runs that fail by the machine's fault."""
    straggler: float = 0.0
    """Share of runs that take ten times as long."""
    fetch_failure: float = 0.0
    """Share of blob transfers that fail."""
    # -- lies
    liar: float = 0.0
    """Share of machines, the bootstrap peers apart, that tell the lies below besides what they honestly say."""
    lie_bid: float = 0.0
    """Share of a liar's bids that promise the impossible."""
    lie_forged: float = 0.0
    """Share of a liar's bids and receipts with which comes a receipt of what it was never given, or badly signed."""
    lie_altered: float = 0.0
    """Share of a liar's receipts that it sends again with other figures, properly signed."""
    lie_record: float = 0.0
    """Share of a liar's messages with which comes a record of itself out of its time, or badly signed."""
    lie_garbage: float = 0.0
    """Share of a liar's messages with which come bytes that are no message."""
    lie_stolen: float = 0.0
    """Share of a liar's messages with which come signed records of others, as if they were its own."""
    lie_ballot: float = 0.0
    """Share of a liar's messages with which comes one that only a job's steward may send, or of a past round."""


def kind_of(field: str) -> str:
    """A kind of fault by the name of its rate."""
    return field.removesuffix("_per_s")
