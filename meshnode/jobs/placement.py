"""Where tasks may run and at what price, as a job file says it."""

from __future__ import annotations

from typing import Any

from protocol.fitness import PRICE_UNITS
from protocol.identity import public_key_of
from protocol.limits import LABELS_MAX, NAME_CHARS_MAX, PLACES_MAX
from protocol.wire import Placement

from .errors import render
from .fields import Fields

PRICE_MAX = 1_000_000
REGION = "region"
"""The label that says where a node is."""

_KEYS = ("region", "labels", "near", "spread", "avoid", "only")


def read_placement(value: Any, file: str, place: str) -> Placement:
    """Return what ``placement`` says; raise InvalidFile."""
    found = Fields(value, file, place, "placement", _KEYS)
    labels = _labels(found)
    region = found.text("region")
    if region is not None:
        _check_name(found, "region", region)
        if labels.setdefault(REGION, region) != region:
            raise found.error("region", f"is {render(region)} here but {render(labels[REGION])} in labels")
    return Placement(
        labels=labels,
        only=_places(found, "only"),
        avoid=_places(found, "avoid"),
        near_input=found.choice("near", ("input",)) is not None,
        spread=_spread(found),
    )


def read_price(found: Fields, key: str) -> int | None:
    """Return a price in millionths of the unit in which it is written."""
    value = found.number(key, 0, PRICE_MAX)
    return None if value is None else round(value * PRICE_UNITS)


def _labels(found: Fields) -> dict[str, str]:
    labels = found.mapping("labels") or {}
    if len(labels) > LABELS_MAX:
        raise found.error("labels", f"are {len(labels)}; a placement has at most {LABELS_MAX}")
    for key, value in labels.items():
        if not isinstance(value, str):
            raise found.error("labels", f"expected a text for {render(key)}, got {render(value)}")
        for text in (key, value):
            _check_name(found, "labels", text)
    return dict(labels)


def _spread(found: Fields) -> str:
    """``true`` over peers, a text over the values of that label."""
    value = found.raw("spread")
    if value is None or value is False:
        return ""
    if value is True:
        return "peers"
    if not isinstance(value, str):
        raise found.error("spread", f"expected true, false or the key of a label such as region, got {render(value)}")
    _check_name(found, "spread", value)
    return value


def _places(found: Fields, key: str) -> tuple[str, ...]:
    """Peer ids and labels (``key=value``), in a list."""
    places = found.items(key) or []
    if len(places) > PLACES_MAX:
        raise found.error(key, f"names {len(places)} peers and labels; at most {PLACES_MAX} are allowed")
    for place in places:
        if not isinstance(place, str) or not _is_place(place):
            raise found.error(key, f"{render(place)} is neither a peer id (12D3Koo…) nor a label such as region=eu")
    return tuple(dict.fromkeys(places))


def _is_place(place: str) -> bool:
    name, equals, value = place.partition("=")
    if equals:
        return 0 < len(name) <= NAME_CHARS_MAX and 0 < len(value) <= NAME_CHARS_MAX
    try:
        public_key_of(place)
    except ValueError:
        return False
    return True


def _check_name(found: Fields, key: str, text: str) -> None:
    if not 0 < len(text) <= NAME_CHARS_MAX:
        raise found.error(key, f"a label's key and value have 1 to {NAME_CHARS_MAX} characters, got {len(text)}")
