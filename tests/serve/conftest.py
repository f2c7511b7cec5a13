from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.inference.tiny import make_run
from tests.serve.serving import Client, pieces_tokenizer, served_config, serving


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


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the server's model that keeps the steps 2 and 4, with the same parameters."""
    folder = tmp_path_factory.mktemp("saved") / "small"
    tokenizer = pieces_tokenizer()
    for step in (2, 4):
        make_run(folder, served_config(tokenizer), tokenizer, step=step)
    return folder
