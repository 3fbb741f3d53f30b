"""A server of its own for the random walks: the embedded one, or the binary that ARDIQ_TEST_SERVER names."""

import os
from collections.abc import Iterator

import pytest

from ardiq.embedded import Server


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        yield server.url
