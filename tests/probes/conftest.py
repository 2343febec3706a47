from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from monitor.probes.sockets import Sockets
from tests.probes.certificates import Certificates
from tests.probes.misbehaving import Misbehaving


@pytest.fixture(scope="module")
def server() -> Iterator[Misbehaving]:
    """A site that does what its URL asks for."""
    server = Misbehaving()
    yield server
    server.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of each kind, from one authority."""
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def sockets() -> AsyncIterator[Sockets]:
    """What waits for the plain sockets of checks."""
    sockets = Sockets()
    yield sockets
    sockets.close()


@pytest.fixture
def bus_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a bus of the test's own keeps its spool."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    return tmp_path
