"""What an operator decides about a node: one frozen value, read once and checked once.

Later sources win: the defaults, ``node.toml`` in the node's home (or the file given), environment variables
``MESHNODE_<KEY>``, flags of the command line.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from meshnode.jobs.placement import PRICE_MAX, REGION
from meshnode.machine import memory_for_tasks, processors
from protocol import limits
from protocol.identity import PeerId, public_key_of
from protocol.profile import Policy
from protocol.wire import Name

FILE_NAME = "node.toml"
ENVIRONMENT_PREFIX = "MESHNODE_"
LISTEN_DEFAULT = ("/ip4/0.0.0.0/tcp/4001",)
SLOTS_MAX = 1024


class ConfigError(Exception):
    """A setting that cannot be used; the text is one sentence that names it and where it stands."""


class _Policy(Policy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy as a file states it: a misspelt rule must not silently allow everything."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one node."""

    home: Path
    mesh: Annotated[Name, Meta(min_length=1)] = "mesh"
    listen: Annotated[tuple[str, ...], Meta(min_length=1)] = LISTEN_DEFAULT
    """Multiaddresses to listen on; port 0 takes any free one."""
    announce: Annotated[tuple[str, ...], Meta(max_length=limits.ADDRESSES_MAX)] = ()
    """What to tell others instead of the addresses that are found."""
    join: tuple[str, ...] = ()
    """Multiaddresses of peers already in the mesh, with ``/p2p/PEER`` at the end."""
    api_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """Port of the HTTP API on loopback; 0 takes any free one, and ``api.json`` in the home says which."""
    runtime: Literal["auto", "sandbox", "docker"] = "auto"
    """``auto`` offers every level of isolation that works here; the others only their own."""
    slots: Annotated[int, Meta(ge=1, le=SLOTS_MAX)] = msgspec.field(default_factory=processors)
    """Tasks that may run at once."""
    memory_bytes: Annotated[int, Meta(ge=1 << 20, lt=1 << 53)] = msgspec.field(default_factory=memory_for_tasks)
    """Memory promised to tasks."""
    warm_idle_s: Annotated[float, Meta(gt=0, le=30 * 86_400)] = 600.0
    """How long a model with ``serve: warm`` stays loaded without work; it goes sooner if it is in the way."""
    storage_bytes: Annotated[int, Meta(ge=1 << 20, lt=1 << 53)] = 64 << 30
    """Disk for blobs; when it is full nothing more is taken in."""
    reserve_bytes: Annotated[int, Meta(ge=0, lt=1 << 53)] = 256 << 20
    """Left free on the home's disk: with less no new work is taken."""
    labels: Annotated[dict[Name, Name], Meta(max_length=limits.LABELS_MAX)] = msgspec.field(default_factory=dict)
    region: Name = ""
    """Where the node is: the label ``region``."""
    price: Annotated[float, Meta(ge=0, le=PRICE_MAX)] = 0.0
    """What it wants for one CPU and second, in whatever unit its mesh has agreed on; jobs that pay less are refused."""
    policy: _Policy = msgspec.field(default_factory=_Policy)
    admitted: tuple[PeerId, ...] = ()
    """Keys of a private mesh; empty admits everybody."""
    trace_bytes: Annotated[int, Meta(ge=0, lt=1 << 53)] = 0
    """Record what the peer is told in ``trace.bin``, up to this size; 0 records nothing."""
    clock_offset_s: float = 0.0
    """Added to the wall clock; for tests of what a wrong clock does."""

    @property
    def all_labels(self) -> dict[str, str]:
        """The labels, the region among them."""
        return {**self.labels, REGION: self.region} if self.region else self.labels

    @property
    def bootstrap(self) -> dict[PeerId, tuple[str, ...]]:
        """The peers of ``join`` and where each is reached."""
        found: dict[PeerId, tuple[str, ...]] = {}
        for address in self.join:
            peer = PeerId(address.rpartition("/p2p/")[2])
            found[peer] = (*found.get(peer, ()), address)
        return found


def load_config(
    home: Path,
    *,
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """The settings of the node at ``home``. ``flags`` are keys of Config; those that are None were not given.

    Raises ConfigError for the first thing that is wrong.
    """
    stated = {
        **_from_environment(environment),
        **{key: value for key, value in (flags or {}).items() if value is not None},
    }
    return _convert("", {**_from_file(file, home), **stated, "home": home})


def _from_file(file: Path | None, home: Path) -> dict[str, Any]:
    path = file or home / FILE_NAME
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if file is None:
            return {}
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"{path}: {error}") from None
    if "home" in values:
        raise ConfigError(f"{path}: home: the home is where this file lies, it cannot be set in it")
    _convert(f"{path}: ", {**values, "home": home})
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Lists are separated by commas; labels are ``key=value`` pairs."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Config):
        variable = ENVIRONMENT_PREFIX + field.name.upper()
        text = environment.get(variable)
        if text is None or field.name in ("home", "policy"):
            continue
        parts = [part.strip() for part in text.split(",") if part.strip()]
        value: object = text
        if field.name in ("listen", "announce", "join", "admitted"):
            value = parts
        elif field.name == "labels":
            value = parse_labels(parts)
        try:
            values[field.name] = msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{variable}: {error}") from None
    return values


def parse_labels(pairs: list[str]) -> dict[str, str]:
    """``["region=eu"]`` to ``{"region": "eu"}``; ConfigError for what is not of this form."""
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"labels: {pair[:80]!r} is not of the form key=value")
        labels[key.strip()] = value.strip()
    return labels


def _convert(where: str, values: dict[str, Any]) -> Config:
    try:
        config = msgspec.convert(values, Config, dec_hook=_as_path)
    except msgspec.ValidationError as error:
        raise ConfigError(where + _sentence(error)) from None
    if config.region and config.labels.get(REGION, config.region) != config.region:
        raise ConfigError(f"{where}region: is {config.region!r}, but labels say {config.labels[REGION]!r}")
    if len(config.all_labels) > limits.LABELS_MAX:
        raise ConfigError(f"{where}labels: with the region these are more than {limits.LABELS_MAX}")
    for address in config.join:
        _check_peer(f"{where}join: {address[:120]!r}", address.rpartition("/p2p/")[2])
    for peer in (*config.admitted, *config.policy.submitters):
        _check_peer(f"{where}admitted, policy.submitters: {peer[:120]!r}", peer)
    for key in ("listen", "announce", "join"):
        for address in getattr(config, key):
            if not address.startswith("/"):
                raise ConfigError(f"{where}{key}: {address[:120]!r} is not of the form /ip4/1.2.3.4/tcp/PORT")
    return config


def _as_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, Path):
        return value
    raise NotImplementedError(f"a {type(value).__name__} where a {kind.__name__} is expected")


def _check_peer(where: str, peer: str) -> None:
    try:
        public_key_of(peer)
    except ValueError:
        raise ConfigError(f"{where} does not name a peer: it needs a peer id (12D3Koo…) at its end") from None


def _sentence(error: msgspec.ValidationError) -> str:
    """``Expected `int` - at `$.slots` `` as ``slots: Expected `int` ``."""
    reason, _, place = str(error).partition(" - at `$.")
    return f"{place.rstrip('`')}: {reason}" if place else reason
