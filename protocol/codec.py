"""Typed values to and from canonical CBOR: the only place where untrusted bytes are read.

Decoding is strict (RFC 8949 section 4.2.1, plus bounds): size before parsing, bounded nesting, no indefinite lengths,
no duplicate keys, no tags, no ``undefined`` or simple values, no floats; and what was read must re-encode to exactly
the received bytes, which also refuses trailing bytes and longer-than-needed integers. Unknown fields are skipped and
unknown kinds reported as such, so that a mesh can be upgraded node by node.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

import cbor2
import msgspec

from protocol import limits
from protocol.errors import RemoteProtocolError

T = TypeVar("T")

_BUILTIN = (bytes,)


class UnknownKind(RemoteProtocolError):
    """Well-formed, but of a kind this version does not know: to be skipped, not punished."""


def encode(value: msgspec.Struct) -> bytes:
    """Canonical CBOR of a wire value."""
    return cbor2.dumps(msgspec.to_builtins(value, builtin_types=_BUILTIN), canonical=True)


def decode(data: bytes, kinds: dict[str, type[T]], *, max_bytes: int) -> T:
    """One value of one of ``kinds`` from exactly ``data``.

    Raises RemoteProtocolError for anything malformed, UnknownKind for a kind that is not in ``kinds``.
    """
    value = _decode_generic(data, max_bytes)
    if not isinstance(value, dict) or not isinstance(kind := value.get("kind"), str):
        raise RemoteProtocolError("not a map with a kind")
    wanted = kinds.get(kind)
    if wanted is None:
        raise UnknownKind(f"unknown kind {kind[: limits.NAME_CHARS_MAX]!r}")
    return _convert(value, wanted, kind)


def decode_as(data: bytes, wanted: type[T], *, max_bytes: int) -> T:
    """One value of exactly that type, as strictly as ``decode``."""
    return _convert(_decode_generic(data, max_bytes), wanted, wanted.__name__)


def _convert(value: Any, wanted: type[T], name: str) -> T:
    try:
        return msgspec.convert(value, wanted, builtin_types=_BUILTIN)
    except (msgspec.ValidationError, RecursionError, ValueError) as error:
        raise RemoteProtocolError(f"{name}: {error}") from None


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("tags are not allowed")


# tags with decoders built into cbor2; some of them compile regular expressions or share references
_BUILT_IN_TAGS = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000, 55799)
_REFUSED_TAGS = dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag)


def _decode_generic(data: bytes, max_bytes: int) -> Any:
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"{len(data)} bytes where {max_bytes} are allowed")
    try:
        value = cbor2.loads(
            data,
            tag_hook=_refuse_tag,
            semantic_decoders=_REFUSED_TAGS,
            max_depth=limits.NESTING_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
        _check_plain(value)
        if cbor2.dumps(value, canonical=True) != data:
            raise RemoteProtocolError("not canonical CBOR")
    except RemoteProtocolError:
        raise
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise RemoteProtocolError(f"not CBOR: {str(error)[:200]}") from None
    return value


def _check_plain(value: Any) -> None:
    """Only maps with text keys, lists, text, bytes, integers, booleans and null."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise RemoteProtocolError("a map key is not text")
            _check_plain(item)
    elif kind is list:
        for item in value:
            _check_plain(item)
    elif value is not None and kind not in (str, bytes, int, bool):
        raise RemoteProtocolError(f"a {kind.__name__} is not allowed")
