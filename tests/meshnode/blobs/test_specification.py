"""What docs/specs/blob-transfer.md quotes is what the code does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from meshnode.blobs import dagpb, exchange, wire
from meshnode.blobs.unixfs import Layout

SPEC = (Path(__file__).parents[3] / "docs" / "specs" / "blob-transfer.md").read_text()


def test_quoted_vectors_are_those_of_the_files(vectors: Callable[[str], Any]) -> None:
    quoted = "".join(SPEC.split())
    frames = {vector["message"]["kind"]: vector["frame"] for vector in reversed(vectors("wire.json")["messages"])}
    for kind in ("get", "content", "sizes"):
        assert frames[kind] in quoted
    names = {vector["cid"] for vector in vectors("unixfs.json")["files"] if f"{vector['size']:,}|`" in quoted}
    assert len(names) >= 4
    assert all(name in SPEC for name in names if name.startswith("bafy"))


def test_quoted_parameters_are_those_of_the_code() -> None:
    layout = Layout()
    for stated in (
        wire.PROTOCOL_ID,
        f"| chunk size | {layout.chunk_bytes:,} bytes |",
        f"| links per node | {layout.max_links} |",
        f"| height | at most {layout.max_height} |",
        f"| node size | at most {dagpb.NODE_BYTES_MAX:,} bytes |",
        f"| message size | at most {wire.MESSAGE_BYTES_MAX:,} bytes |",
        f"| CIDs per `have` | at most {wire.CIDS_PER_REQUEST_MAX} |",
        f"| stall | {exchange.STALL_S:g} s |",
        f"| open | {exchange.OPEN_TIMEOUT_S:g} s |",
        f"{exchange.STREAMS_MAX}, of these {exchange.STREAMS_PER_PEER_MAX} per remote",
        f"at most {exchange.REQUESTS_PER_SOURCE_MAX} with one server",
        f"{exchange.ATTEMPTS_WITHOUT_PROGRESS} in a row per source, {exchange.ATTEMPTS_BUSY} if it is `busy`",
        f"{exchange.RETRY_DELAY_S:g} s · 2ⁿ after n tries without progress, at most {exchange.RETRY_DELAY_MAX_S:g} s",
    ):
        assert stated in SPEC, stated
