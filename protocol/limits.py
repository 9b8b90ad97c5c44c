"""Every bound and every interval of the protocol, with its unit. A name ends in its unit.

``Limits`` are a constructor argument of ``Peer``: a simulation or a test may run with other values. The sizes of
wire types are module constants, because all peers of a mesh must agree on them.
"""

from __future__ import annotations

import msgspec

# -- sizes on the wire: part of the protocol ------------------------------------------------------------------
FRAME_BYTES_MAX = 256 * 1024
"""One message on a control stream."""
RECORD_BYTES_MAX = 64 * 1024
"""Payload of one signed record; a job spec is the largest."""
CAPABILITY_BYTES_MAX = 4 * 1024
"""Payload of a capability record: up to ``RECORDS_PER_MESSAGE_MAX`` of them travel in one message."""
RECEIPT_BYTES_MAX = 16 * 1024
"""Payload of one receipt."""
DETAILS_BYTES_MAX = 96 * 1024
"""Tasks, receipts and awards in one answer about a job: with the spec and the summary it fits a frame."""
POINTERS_BYTES_MAX = 128 * 1024
"""Payloads of all pointers in one answer."""
NESTING_MAX = 12
"""Levels of nesting in a message."""
TEXT_CHARS_MAX = 1024
"""A reason, an error, a label."""
NAME_CHARS_MAX = 128
"""An alias, a model id, a stage name, a mesh name."""
PEER_ID_CHARS_MAX = 64
CID_CHARS_MAX = 128
ADDRESSES_MAX = 8
"""Addresses in one capability record."""
ADDRESS_CHARS_MAX = 256
LABELS_MAX = 16
PLACES_MAX = 16
"""Peers and labels that a placement names as the only ones, and as ones to avoid."""
PLACE_CHARS_MAX = 2 * NAME_CHARS_MAX + 1
"""One of them: a peer id, or ``key=value``."""
HOLDERS_MAX = 5
STAGES_MAX = 32
BLOBS_PER_JOB_MAX = 512
"""Files a job brings along: model and inputs."""
TASKS_MAX = 200
"""Shard tasks of one stage: a merge's award lists each of them, in one record."""
SHARDS_MAX = 1_000_000
"""Shards of one stage. More than ``TASKS_MAX`` share tasks: ``protocol.batches``."""
RANGES_PER_AWARD_MAX = 64
CONTENT_BYTES_MAX = 4096
"""An output up to this size travels with its receipt."""
RECEIPTS_PER_MESSAGE_MAX = 64
AWARDS_ASKED_MAX = 256
"""Awards that a new steward asks one worker about."""
RECORDS_PER_MESSAGE_MAX = 32
SKETCH_VALUES_MAX = 32
SETTINGS_BYTES_MAX = 32 * 1024
"""Parameters of a stage, as JSON."""
TRIES_SHOWN_MAX = 12
"""The latest tries of one task."""
REASON_CHARS_SHOWN_MAX = 160
"""Of the reasons that others gave, in an answer about a job: it holds many of them, and must fit a frame."""
BUILT_IN_MEMORY_BYTES = 512 << 20
"""What a split or a merge gets: they are not the model, and do not get its share."""
ATTEMPTS_MAX = 100
CONFIGURATIONS_MAX = 16
"""Times that the holders of one job's record may change; its certificates travel together."""
FACT_KEY_BYTES = 8
"""As much of a fact's digest as tells it from the others of its job."""
FACTS_MAX = 8_192
"""Facts about one job at one holder."""
FACTS_BYTES_MAX = 96 * 1024
"""Payloads of the facts in one message."""
FACTS_PER_MESSAGE_MAX = 512
RENEWALS_MAX = 64
"""Jobs in one renewal."""
EPOCH_STEP_MAX = 1 << 16
"""An acceptor takes no epoch further ahead than this: nobody can use up the numbers."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one peer allows itself and others."""

    # -- clocks
    clock_skew_ms: int = 60_000
    """A signed record from further in the future, or a neighbour further off, is not believed."""

    # -- membership: HyParView (Leitao et al. 2007), section 4.3; SWIM (Das et al. 2002)
    active_view_max: int = 6
    active_view_enough: int = 4
    """With fewer neighbours a peer looks for more at ``maintain_interval_ms``, else at ``maintain_relaxed_ms``."""
    passive_view_max: int = 64
    partners_max: int = 256
    """Peers on which this one's work depends, and whose records are kept besides."""
    partner_ping_ms: int = 10_000
    """How often these are pinged, so that their records stay fresh."""
    active_random_walk_hops: int = 5
    shuffle_interval_ms: int = 5_000
    shuffle_records: int = 8
    shuffle_walk_hops: int = 3
    near_first_ms: int = 1_000
    """How often a new peer looks for those nearby on the ring,"""
    near_interval_ms: int = 5_000
    """and later."""
    maintain_interval_ms: int = 1_000
    maintain_relaxed_ms: int = 10_000
    maintain_swap: int = 6
    """With a full active view, one look in so many puts a random other in the place of a neighbour."""
    join_retry_ms: int = 500
    """First pause between two attempts to reach a bootstrap peer; doubles up to ``join_retry_max_ms``."""
    join_retry_max_ms: int = 10_000
    neighbour_timeout_ms: int = 3_000
    probe_interval_ms: int = 1_000
    probe_timeout_ms: int = 1_000
    probe_helpers: int = 3
    visibility_first_ms: int = 4_000
    visibility_interval_ms: int = 15_000
    """How often a node asks whether others can reach it."""
    visibility_timeout_ms: int = 5_000
    capability_refresh_ms: int = 20_000
    capability_lifetime_ms: int = 75_000
    departed_max: int = 256
    """Peers remembered as gone, so that their old record is not taken back."""
    clock_samples_max: int = 32
    mesh_epoch_ms: int = 300_000
    """How long one estimate of the mesh's size is collected."""

    # -- announcements, draw, bids
    bids_wanted: int = 16
    refusals_wanted: int = 32
    everybody_answers_up_to: int = 32
    bid_window_ms: int = 250
    """A round of an auction ends then, or when every peer that was asked has answered."""
    announce_rounds_to_flood: int = 3
    announce_hops: int = 2
    """Hops of the second round; each later round adds two, the last is a flood; then from the start again."""
    scouted_max: int = 4
    """Whoever passes an announcement on, and knows no more peers than this that fit, tells them too."""
    flood_hops: int = 24
    reannounce_first_ms: int = 1_000
    reannounce_max_ms: int = 8_000
    announcement_lifetime_ms: int = 20_000
    seen_max: int = 4_096
    """Announcements remembered to suppress duplicates."""
    forwards_per_s_max: int = 200
    bids_per_auction_max: int = 128
    refusals_kept_max: int = 128
    bid_lifetime_ms: int = 30_000
    rounds_remembered: int = 8
    """Answers to older rounds of an auction are too old to matter."""
    typical_task_ms: int = 1_000
    """What a task is taken to last while nobody knows better."""
    cold_start_ms: int = 500
    """What a worker that never ran a model is taken to need for fetching it."""
    fetch_input_ms: int = 100
    """What a worker without the inputs is taken to need for fetching them."""
    fetch_far_ms: int = 5_000
    """The same for a job that wants to be near its input."""

    # -- awards, leases, runs
    award_target_ms: int = 1_000
    """Work that may wait for each slot of a worker, once its speed is known."""
    second_try_gain_percent: int = 150
    """A second try begins if the first will take that much of what the second takes."""
    second_try_margin_ms: int = 200
    """And so much more: what it costs to give it out, and to stop the loser."""
    experience_max: int = 4_096
    """Peers of which a steward remembers what their bids were worth."""
    offer_timeout_ms: int = 1_500
    progress_interval_ms: int = 1_000
    progress_timeout_ms: int = 6_000
    """A worker unheard of for so long has lost its lease."""
    idle_winner_ms: int = 15_000
    """A worker that has run none of an award's tasks for so long loses it, if another peer is free."""
    lease_slack_ms: int = 30_000
    fetch_bytes_per_ms: int = 1_000
    """A worker that gets what it reads at this pace has its lease left for the work."""
    receipt_retry_ms: int = 1_000
    worker_pause_ms: int = 3_000
    """A worker that declined or was lost gets nothing new from this job for so long."""
    leases_per_peer_max: int = 256
    awards_per_job_max: int = 4 * TASKS_MAX
    receipts_kept_max: int = 8_192
    refusals_per_s_max: int = 50

    # -- jobs
    jobs_max: int = 1_024
    """Jobs one steward keeps, finished ones included; the oldest finished one goes first."""
    running_jobs_max: int = 128
    retention_ms: int = 24 * 3_600_000
    copy_bytes_max: int = 1 << 30
    """Model and inputs up to this size are copied to the second peer before "accepted"."""
    keep_output_bytes_max: int = 256 << 20
    """A worker's output up to this size is copied to the steward as soon as it is pinned."""
    copy_tries: int = 2
    """So often a steward tries to fetch an output from its worker before it is taken to be lost."""
    copy_retry_ms: int = 2_000
    submissions_max: int = 64
    """Jobs on their way to being accepted."""
    holds_max: int = 16
    """Jobs whose files are being fetched for other stewards."""
    copies_max: int = 64
    """Outputs that are being copied for other stewards."""
    hand_on_ms: int = 15_000
    """A holder to which a submission was passed on, and that has not answered by then, is passed over."""
    askers_max: int = 16
    """Clients waiting for the same one."""
    accept_timeout_ms: int = 60_000
    intake_retry_ms: int = 1_500
    """Who was asked to keep a new job's record or files, and has not answered, is asked again; then ever later."""
    hold_timeout_ms: int = 15_000

    # -- the record: ``docs/specs/record.md``
    renew_interval_ms: int = 500
    settled_watch_ms: int = 5_000
    """How often a holder whose jobs have all ended looks whether their time is over."""
    facts_flush_ms: int = 30
    """New facts are sent to the other holders so soon."""
    suspect_ms: int = 2_000
    """A steward unheard of for so long is succeeded by a witness; see ``suspect_step_ms``."""
    suspect_step_ms: int = 300
    """Each holder waits longer than the one before it in the list."""
    campaign_timeout_ms: int = 1_500
    """A holder that no majority has answered by then looks after the job provisionally."""
    takeover_grace_ms: int = 2_000
    """A new steward awards nothing for so long, unless all workers that it knows of have answered."""
    deaf_ms: int = 3_000
    """A steward that no majority has answered for so long no longer keeps the others from succeeding it."""
    stuck_ms: int = 60_000
    """A steward that gets nowhere for so long, though tasks are ready and nobody has them, may be succeeded."""
    replace_ms: int = 30_000
    """A holder unheard of for so long is replaced: longer than a restart takes."""
    repair_ms: int = 10_000
    """How often a steward looks after copies of the job's files and after its holders."""
    copy_timeout_ms: int = 10_000
    """A job ends with one copy of its output when no second one can be had for so long."""
    worker_asks_ms: int = 5_000
    """A worker unheard of by its steward for so long asks the other holders who it is."""
    deadline_margin_ms: int = 1_000
    records_max: int = 2_048
    """Jobs whose record one peer keeps."""
    finished_bytes_max: int = 32 << 20
    """Facts about jobs that have ended, in bytes; the oldest job goes first and leaves a tombstone."""
    tombstones_max: int = 65_536

    # -- pointers and lookup
    pointer_copies: int = 3
    pointers_max: int = 4_096
    pointer_refresh_ms: int = 10_000
    """A pointer that too few keep is placed again after so long, one that enough keep later and later,"""
    pointer_refresh_max_ms: int = 1_800_000
    """up to this; then even those that have confirmed it are asked again."""
    lookup_near_ms: int = 1_000
    """A walk towards a key has found it by then, or the neighbourhood is asked."""
    lookup_timeout_ms: int = 1_500
    cancel_ms: int = 5_000
    """Whoever cancels a job hears by then how it ended, or that its holders have not decided yet."""
    walk_hops: int = 12
    """The most that a question with a key, or a pointer, goes: beyond what a mesh of 10,000 needs."""
    lookup_hops: int = 3
    """The most that a question without a key goes."""
    lookups_max: int = 256
    queries_per_sender_max: int = 64

    # -- signed records
    reader_records_max: int = 4_096
    reader_bytes_max: int = 16 << 20
    """Opened records remembered, so that one that is flooded is verified once."""

    # -- misbehaviour
    garbage_max: int = 8
    """Malformed frames from one peer within a minute before it is left alone."""
    banned_ms: int = 60_000

    def __post_init__(self) -> None:
        assert self.probe_timeout_ms <= self.probe_interval_ms
        assert 3 * self.probe_timeout_ms < self.visibility_timeout_ms < self.visibility_interval_ms
        assert self.capability_refresh_ms * 2 < self.capability_lifetime_ms
        assert self.progress_interval_ms * 3 <= self.progress_timeout_ms < self.idle_winner_ms
        assert self.awards_per_job_max >= 2 * TASKS_MAX  # one counted and one open for each task, at the most
        assert self.bid_window_ms < self.reannounce_first_ms <= self.reannounce_max_ms
        assert self.reannounce_max_ms < self.announcement_lifetime_ms
        assert 0 < self.shuffle_records <= RECORDS_PER_MESSAGE_MAX
        assert self.active_view_enough < self.active_view_max < self.passive_view_max


DEFAULT_LIMITS = Limits()
