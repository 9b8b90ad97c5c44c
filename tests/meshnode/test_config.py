"""What an operator may set, and how a wrong setting is named."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.config import LISTEN_DEFAULT, ConfigError, load_config
from protocol.identity import Ed25519Signer

PEER = Ed25519Signer(bytes(32)).peer_id
PLACE = f"/ip4/10.0.0.7/tcp/4001/p2p/{PEER}"


def test_defaults_make_a_node(tmp_path: Path) -> None:
    config = load_config(tmp_path, environment={})
    assert (config.mesh, config.listen, config.join, config.runtime) == ("mesh", LISTEN_DEFAULT, (), "auto")
    assert config.slots >= 1
    assert config.memory_bytes > 1 << 20
    assert config.policy.accept_work


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('mesh = "file"\nslots = 1\nruntime = "docker"\n[labels]\nregion = "eu"\n')
    environment = {"MESHNODE_MESH": "env", "MESHNODE_SLOTS": "2", "MESHNODE_CLOCK_OFFSET_S": "-86400", "OTHER": "x"}
    config = load_config(tmp_path, environment=environment, flags={"mesh": "flag", "slots": None})
    assert (config.mesh, config.slots, config.runtime) == ("flag", 2, "docker")
    assert config.labels == {"region": "eu"}
    assert config.clock_offset_s == -86400


def test_lists_and_labels_in_the_environment(tmp_path: Path) -> None:
    environment = {"MESHNODE_JOIN": f"{PLACE}, {PLACE}", "MESHNODE_LABELS": "region=eu, rack = 7"}
    config = load_config(tmp_path, environment=environment)
    assert config.bootstrap == {PEER: (PLACE, PLACE)}
    assert config.labels == {"region": "eu", "rack": "7"}


def test_a_region_is_a_label(tmp_path: Path) -> None:
    config = load_config(tmp_path, environment={"MESHNODE_REGION": "eu", "MESHNODE_PRICE": "0.002"})
    assert (config.all_labels, config.price) == ({"region": "eu"}, 0.002)
    assert load_config(tmp_path, environment={}, flags={"labels": {"rack": "7"}}).all_labels == {"rack": "7"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("slots = 0", "slots: "),
        ("slots = 'a'", "slots: "),
        ("mesh = ''", "mesh: "),
        ("slot = 3", "`slot`"),
        ("listen = ['4001']", "listen: '4001'"),
        ("join = ['/ip4/1.2.3.4/tcp/4001']", "join: "),
        ("admitted = ['nobody']", "admitted"),
        ("[policy]\naccept = true", "policy: "),
        ("[labels]\na = 3", "labels"),
        ("region = 'eu'\n[labels]\nregion = 'us'", "region: is 'eu', but labels say 'us'"),
        ("price = -1", "price: "),
        ("price = 'cheap'", "price: "),
        ("runtime = 'rkt'", "runtime: "),
        ("home = '/'", "home: "),
        ("mesh = [", "Invalid value"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(tmp_path: Path, text: str, names: str) -> None:
    (tmp_path / "node.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path, environment={})
    assert str(tmp_path / "node.toml") in str(caught.value)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SLOTS", "many"), ("API_PORT", "70000"), ("LABELS", "x"), ("JOIN", "somewhere"), ("RUNTIME", "")],
)
def test_a_wrong_variable_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name.lower() if name in ("LABELS", "JOIN") else f"MESHNODE_{name}"):
        load_config(tmp_path, environment={f"MESHNODE_{name}": value})


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path, file=tmp_path / "other.toml", environment={})


_KEYS = st.sampled_from(["mesh", "listen", "join", "slots", "labels", "policy", "admitted", "api_port", "x"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(flags=st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_any_flags_make_a_config_or_one_error(flags: dict[str, Any]) -> None:
    with suppress(ConfigError):
        load_config(Path("/nonexistent"), environment={}, flags=flags)


@given(content=st.binary(max_size=200))
def test_any_file_makes_a_config_or_one_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("config")
    (folder / "node.toml").write_bytes(content)
    with suppress(ConfigError):
        load_config(folder, environment={})
