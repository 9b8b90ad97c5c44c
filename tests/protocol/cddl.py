"""The wire types as CDDL (RFC 8610), made from the structs themselves: what the specifications must say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import NODEFAULT, inspect

from protocol import limits
from protocol.decrees import Final, Next
from protocol.facts import FACT_KINDS
from protocol.messages import MESSAGE_KINDS
from protocol.signing import RECORD_KINDS
from protocol.wire import Wire

#: Names of bounded types, as the specification's prelude has them.
TEXTS = {
    (1, limits.PEER_ID_CHARS_MAX): "peer-id",
    (1, limits.CID_CHARS_MAX): "cid",
    (1, limits.PLACE_CHARS_MAX): "place",
    (0, limits.NAME_CHARS_MAX): "name",
    (0, limits.TEXT_CHARS_MAX): "text-line",
    (0, limits.ADDRESS_CHARS_MAX): "address",
}
BYTES = {(32, 32): "digest", (16, 16): "nonce", (64, 64): "signature", (8, 8): "fact-key"}
NUMBERS = {
    (0, (1 << 31) - 1): "count",
    (0, (1 << 53) - 1): "size",
    (0, (1 << 63) - 1): "u63",
    (0, 64): "hops",
}
#: Choices between maps that are told apart by their ``kind``, each by its own name.
UNIONS: dict[str, tuple[type[msgspec.Struct], ...]] = {"decree": (Next, Final), "fact": tuple(FACT_KINDS.values())}


def rule_name(kind: type[msgspec.Struct]) -> str:
    """``JobView`` as ``job-view``; what has a kind by that."""
    tag = kind.__struct_config__.tag
    if isinstance(tag, str):
        return tag
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).lstrip("-")


def all_types() -> list[type[msgspec.Struct]]:
    """Every struct on the wire: messages, records, and what is inside them (decrees and facts too), each once."""
    found: dict[type[msgspec.Struct], None] = {}
    todo: list[type[msgspec.Struct]] = [*MESSAGE_KINDS.values(), *RECORD_KINDS.values()]
    while todo:
        kind = todo.pop()
        if kind not in found:
            assert issubclass(kind, Wire)
            found[kind] = None
            todo += [inner for field in _fields(kind) for inner in _structs(field.type)]
    return list(found)


def rule(kind: type[msgspec.Struct]) -> list[str]:
    """The lines of one rule, without comments."""
    tag = kind.__struct_config__.tag
    lines = [f"{rule_name(kind)} = {{"]
    if isinstance(tag, str):
        lines.append(f'  kind: "{tag}",')
    for field in _fields(kind):
        optional = field.default is not NODEFAULT or field.default_factory is not NODEFAULT
        default = _default(field)
        lines.append(f"  {'? ' if optional else ''}{field.encode_name}: {_type(field.type)}{default},")
    return [*lines, "  * tstr => any,", "}"]


def _fields(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return described.fields


def _structs(kind: inspect.Type) -> Iterator[type[msgspec.Struct]]:
    match kind:
        case inspect.StructType():
            yield kind.cls
        case inspect.VarTupleType():
            yield from _structs(kind.item_type)
        case inspect.UnionType():
            for one in kind.types:
                yield from _structs(one)
        case inspect.Metadata(inner):
            yield from _structs(inner)


def _default(field: inspect.Field) -> str:
    value: Any = field.default
    match value:
        case bool():
            return f" .default {str(value).lower()}"
        case str():
            return f' .default "{value}"'
        case int():
            return f" .default {value}"
        case bytes():
            return f" .default '{value.decode()}'"
    return ""  # absent, empty, or a map of defaults


def _type(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata(inner):
            return _type(inner)
        case inspect.BoolType():
            return "bool"
        case inspect.NoneType():
            return "null"
        case inspect.IntType():
            high = kind.le if kind.le is not None else (kind.lt or 0) - 1
            return NUMBERS.get((kind.ge or 0, high), f"{kind.ge or 0}..{high}")
        case inspect.BytesType():
            bounds = (kind.min_length or 0, kind.max_length or 0)
            return BYTES.get(bounds, f"bstr .size ({bounds[0]}..{bounds[1]})")
        case inspect.EnumType():
            return kind.cls.__name__.lower()
        case inspect.StrType() if kind.max_length is None:
            return " / ".join(f'"{word}"' for word in (kind.pattern or "").strip("^$()").split("|"))
        case inspect.StrType():
            return TEXTS[kind.min_length or 0, kind.max_length or 0]
        case inspect.VarTupleType():
            return f"[{kind.min_length or 0}*{kind.max_length} {_type(kind.item_type)}]"
        case inspect.DictType():
            return f"{{0*{kind.max_length} {_type(kind.key_type)} => {_type(kind.value_type)}}}"
        case inspect.UnionType():
            return " / ".join(dict.fromkeys(_choice(one) for one in kind.types))
        case inspect.StructType():
            return rule_name(kind.cls)
    raise AssertionError(f"no CDDL for {kind}")


def _choice(kind: inspect.Type) -> str:
    """One branch of a union; of a named one its name."""
    structs = set(_structs(kind))
    return next((name for name, members in UNIONS.items() if structs and structs <= set(members)), _type(kind))
