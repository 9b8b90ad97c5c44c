"""What can go wrong with blobs.

Apart from these: ValueError for what is not a CID, and OSError where a file is added or read.
"""

from __future__ import annotations

from collections.abc import Mapping


class BlobError(Exception):
    """Base of the errors below."""


class BlobMissing(BlobError):
    """The blob is not in this store."""


class BlobDamaged(BlobError):
    """The blob on disk no longer was what its name says, and has been dropped."""


class BlobTooLarge(BlobError):
    """The content goes beyond the limit the caller gave."""


class StoreFull(BlobError):
    """The store's capacity does not allow it."""


class StoreFailed(BlobError):
    """The disk did not take what was received."""


class FetchFailed(BlobError):
    """No source gave the blob.

    ``reasons`` has one sentence per source, ``bad_sources`` those that sent something else than the blob.
    """

    def __init__(self, cid: str, reasons: Mapping[str, str], bad_sources: tuple[str, ...]) -> None:
        self.cid = cid
        self.reasons = dict(reasons)
        self.bad_sources = bad_sources
        listed = "; ".join(f"{peer}: {reason}" for peer, reason in reasons.items())
        super().__init__(f"blob {cid} could not be fetched: {listed or 'no source to ask'}")
