"""The specifications say what the code does: every kind, field, bound, default and quoted vector."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from protocol import limits
from protocol.facts import FACT_KINDS
from protocol.limits import DEFAULT_LIMITS, Limits
from protocol.messages import MESSAGE_KINDS
from protocol.signing import RECORD_KINDS
from tests.protocol.cddl import BYTES, TEXTS, UNIONS, all_types, rule, rule_name

SPECS = Path(__file__).parents[2] / "docs" / "specs"
OURS = ("signed-records.md", "messages.md", "record.md", "auction.md", "dissemination.md")
TEXT = {name: (SPECS / name).read_text() for name in OURS}
VECTORS = "".join(path.read_text() for path in sorted((Path(__file__).parent / "vectors").glob("*.json")))


def rules_in(text: str) -> dict[str, list[str]]:
    """The CDDL rules of a document, without comments and alignment."""
    found: dict[str, list[str]] = {}
    for block in re.findall(r"```cddl\n(.*?)```", text, re.DOTALL):
        name = ""
        for line in block.splitlines():
            bare = re.sub(r"\s*;.*", "", line).rstrip()
            if match := re.match(r"([\w-]+) = \{", bare):
                name = match.group(1)
                assert name not in found, f"{name} is there twice"
                found[name] = []
            if bare and name:
                found[name].append(bare)
            if bare == "}":
                name = ""
    return found


RULES = {name: lines for text in TEXT.values() for name, lines in rules_in(text).items()}


@pytest.mark.parametrize("kind", all_types(), ids=rule_name)
def test_every_type_on_the_wire_is_specified_as_it_is(kind: type[msgspec.Struct]) -> None:
    assert RULES.get(rule_name(kind)) == rule(kind)


def test_nothing_is_specified_that_is_not_there() -> None:
    assert set(RULES) == {rule_name(kind) for kind in all_types()}


def test_records_and_messages_have_a_document_each() -> None:
    assert set(RECORD_KINDS) <= set(rules_in(TEXT["signed-records.md"]))
    assert set(MESSAGE_KINDS) <= set(rules_in(TEXT["messages.md"]))
    assert {"next", "final", *FACT_KINDS} <= set(rules_in(TEXT["record.md"]))


def test_choices_are_as_in_the_prelude() -> None:
    for name, kinds in UNIONS.items():
        choice = f"{name} = {' / '.join(rule_name(kind) for kind in kinds)}"
        assert f"```cddl\n{choice}\n```" in TEXT["record.md"]


def test_the_sizes_of_strings_are_as_in_the_prelude() -> None:
    for (_, size), name in BYTES.items():
        assert re.search(rf"^{name} = bstr .size {size}\b", TEXT["signed-records.md"], re.MULTILINE), name


def test_the_lengths_of_texts_are_as_in_the_prelude() -> None:
    for (low, high), name in TEXTS.items():
        bounds = f"1 to {high}" if low else f"at most {high}"
        assert re.search(
            rf"^{name} = tstr +; {bounds} characters(, printable ASCII)?$", TEXT["signed-records.md"], re.MULTILINE
        ), name


# -- parameters -----------------------------------------------------------------------------------------------

ROWS = [
    (document, name, int(value))
    for document, text in TEXT.items()
    for name, value in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)
]


@pytest.mark.parametrize(("document", "name", "value"), ROWS, ids=[name for _, name, _ in ROWS])
def test_a_parameter_has_the_default_that_is_written(document: str, name: str, value: int) -> None:
    assert (getattr(limits, name) if name.isupper() else getattr(DEFAULT_LIMITS, name)) == value


def test_every_bound_is_written_down_once() -> None:
    constants = {name for name, value in vars(limits).items() if name.isupper() and isinstance(value, int)}
    written = [name for _, name, _ in ROWS]
    assert sorted(written) == sorted({*constants, *Limits.__struct_fields__})


def test_every_parameter_that_a_rule_names_exists() -> None:
    known = {*vars(limits), *Limits.__struct_fields__}
    fields = {field for kind in all_types() for field in kind.__struct_fields__}
    for document, text in TEXT.items():
        for name in re.findall(r"`(\w+_(?:ms|max|wanted|hops|helpers|copies|records)|[A-Z_]{6,})`", text):
            assert name in known | fields, f"{document}: {name}"


# -- vectors and links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_quoted_vectors_are_those_of_the_files(name: str) -> None:
    part = TEXT[name].partition("## Test vectors")[2]
    assert part
    hexes = re.findall(r"(?:^[0-9a-f]{2,}$\n?)+|\b[0-9a-f]{32,}\b", part, re.MULTILINE)
    values = ["".join(text.split()) for text in hexes] + re.findall(r"12D3Koo\w+|\b\d{15,}\b", part)
    assert values
    for value in values:
        assert value in VECTORS


@pytest.mark.parametrize("name", OURS)
def test_links_and_files_exist(name: str) -> None:
    root = SPECS.parents[1]
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT[name]):
        assert (SPECS / target).is_file(), target
    folder = ""
    for mentioned in re.findall(r"`([\w/.-]+\.(?:py|json))`", TEXT[name]):
        folder = str(Path(mentioned).parent) if "/" in mentioned else folder
        assert (root / folder / Path(mentioned).name).is_file(), mentioned
