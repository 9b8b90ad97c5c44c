"""For all tests."""

from __future__ import annotations

import os

import docker
import pytest
from hypothesis import settings

settings.register_profile("mesh", deadline=None)  # the machines that property tests run on are noisy
settings.load_profile("mesh")


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that answers. Where there is none the test is skipped; CI has to have one."""
    try:
        client = docker.from_env()
        client.ping()
        client.close()
    except docker.errors.DockerException as error:
        message = f"no Docker engine answers: {error}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
