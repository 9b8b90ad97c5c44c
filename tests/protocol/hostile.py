"""Strangers that say anything the types allow, and as often as they like."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from random import Random
from types import FunctionType, MethodType
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from protocol import messages
from protocol.identity import Ed25519Verifier
from protocol.messages import MESSAGE_KINDS, Message
from protocol.records import Award, JobSpec
from protocol.signing import RecordReader, Signed, sign
from protocol.timers import Timer
from tests.protocol import samples
from tests.protocol.samples import QuickSigner

# -- anything that is well typed ------------------------------------------------------------------------------


def well_typed(signed: list[Signed], digests: list[bytes], names: list[str]) -> st.SearchStrategy[Message]:
    """Any message of any kind; where it can it names what the peer under test really knows."""
    fields = {
        kind: {
            field.name: _values(field.type, signed, digests, names)
            for field in inspect.type_info(kind).fields  # type: ignore[attr-defined]
        }
        for kind in MESSAGE_KINDS.values()
    }
    return st.one_of([st.builds(kind, **values) for kind, values in fields.items()])


def _values(kind: inspect.Type, signed: list[Signed], digests: list[bytes], names: list[str]) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.Metadata(inner):
            return _values(inner, signed, digests, names)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.IntType():
            low = kind.ge if kind.ge is not None else 0
            high = kind.le if kind.le is not None else (kind.lt or 1 << 31) - 1
            return st.sampled_from([low, low + 1, high, high - 1]) | st.integers(low, high)
        case inspect.BytesType():
            size = kind.min_length or 0
            fitting = [digest for digest in digests if len(digest) == size]
            anything = st.binary(min_size=size, max_size=min(kind.max_length or 64, max(size, 64)))
            return st.sampled_from(fitting) | anything if fitting else anything
        case inspect.StrType() if kind.max_length is None:
            return st.sampled_from(["job", "model"])
        case inspect.StrType():
            text = st.text(min_size=kind.min_length or 0, max_size=min(kind.max_length or 20, 20))
            return st.sampled_from(names) | text
        case inspect.EnumType():
            return st.sampled_from(list(kind.cls))
        case inspect.UnionType():
            return st.one_of([_values(one, signed, digests, names) for one in kind.types])
        case inspect.VarTupleType():
            return st.lists(_values(kind.item_type, signed, digests, names), max_size=3).map(tuple)
        case inspect.StructType() if kind.cls is Signed:
            return st.sampled_from([*signed, samples.forged(signed[0])])
        case inspect.StructType():
            fields = {field.name: _values(field.type, signed, digests, names) for field in kind.fields}
            return st.builds(kind.cls, **fields)
    raise AssertionError(f"a type that no message has yet: {kind}")


# -- floods ---------------------------------------------------------------------------------------------------


class Flood:
    """Messages of one kind, each different, each from a stranger of its own; signatures are good but cost nothing."""

    def __init__(self, kind: type[Message], target: str) -> None:
        self._kind = kind
        self._fields = samples.message_fields()[kind]
        self._target = target

    def messages(self, count: int) -> Iterator[tuple[str, Message]]:
        for number in range(count):
            stranger = QuickSigner(f"stranger-{number}")
            yield stranger.peer_id, self._vary(self._kind(**self._fields), number, stranger)

    def _vary(self, value: Any, number: int, stranger: QuickSigner) -> Any:
        if isinstance(value, Signed):
            return self._resigned(value, number, stranger)
        if isinstance(value, msgspec.Struct):
            changed = {
                name: self._vary(getattr(value, name), number, stranger)
                for name in value.__struct_fields__
                if name not in ("stage", "hops", "wall_ms", "start")
            }
            return msgspec.structs.replace(value, **changed)
        if isinstance(value, tuple):
            return tuple(self._vary(item, number, stranger) for item in value)
        if isinstance(value, bytes) and len(value) == 32:
            return samples.digest_of(f"{number}")
        if type(value) is int:
            return number
        return value

    def _resigned(self, signed: Signed, number: int, stranger: QuickSigner) -> Signed:
        record = READER.open_any(signed).record
        changes: dict[str, Any] = {
            name: stranger.peer_id
            for name in ("peer", "submitter", "steward", "worker", "publisher")
            if hasattr(record, name)
        }
        if "nonce" in record.__struct_fields__:
            nonce = record.nonce  # type: ignore[attr-defined]
            changes["nonce"] = samples.nonce_of(f"{number}") if isinstance(nonce, bytes) else number
        if "alias" in record.__struct_fields__:
            changes["alias"] = f"job-{number}"
        if isinstance(record, JobSpec):
            mine = samples.holder(self._target)
            theirs = msgspec.structs.replace(mine, peer=stranger.peer_id)
            submitted = self._kind is messages.Submit
            changes |= {"holders": (mine, theirs), "steward": mine.peer if submitted else stranger.peer_id}
        if isinstance(record, Award):
            changes["worker"] = samples.holder(self._target).peer
            changes["job"] = self._job(number, stranger)
        return sign(msgspec.structs.replace(record, **changes), stranger).signed

    def _job(self, number: int, stranger: QuickSigner) -> bytes:
        return self._resigned(samples.spec().signed, number, stranger).digest


READER = RecordReader(Ed25519Verifier())


# -- what a peer remembers ------------------------------------------------------------------------------------

_LEAVES = (str, bytes, int, float, bool, type(None), type, Random, FunctionType, MethodType, msgspec.Struct)


def tables(root: object) -> dict[str, int]:
    """The size of every container that hangs on an object, by the path to it; timers that were cancelled are none."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    todo: list[tuple[str, object]] = [("peer", root)]
    while todo:
        path, value = todo.pop()
        if id(value) in seen or isinstance(value, _LEAVES):
            continue
        seen.add(id(value))
        if isinstance(value, dict | list | tuple | set | deque):
            items = list(value.values()) if isinstance(value, dict) else list(value)
            found[path] = max(found.get(path, 0), sum(1 for item in items if not _cancelled(item)))
            todo += [(f"{path}[]", item) for item in items]
            continue
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in [*getattr(value, "__dict__", {}), *slots]:
            todo.append((f"{path}.{name.lstrip('_')}", getattr(value, name, None)))
    return found


def _cancelled(item: object) -> bool:
    return isinstance(item, tuple) and any(isinstance(part, Timer) and not part.pending for part in item)
