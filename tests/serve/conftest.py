from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serve.serving import Client, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Client]:
    """One server for all tests that leave it as it was."""
    with serving() as client:
        yield client


@pytest.fixture
def client(server: Client) -> Iterator[Client]:
    """The server, which must be idle and have compiled nothing when the test ends."""
    yield server
    server.wait_until_idle()
    assert server.worker.compilations.count == 0, server.worker.compilations.names
    assert server.get("/healthz").status == 200
