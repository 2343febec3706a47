"""The fast tests, run by Debian 13's own Python against its versions of the libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio

from tests.distro.built import Built, copy_of_tree
from tests.servers.debian import machine

pytestmark = [pytest.mark.distro, pytest.mark.timeout(900)]


def test_the_fast_tests_pass_with_debians_libraries(built: Built, tmp_path: Path) -> None:
    tree = copy_of_tree(tmp_path / "tree")
    # What the packages carry along because there is no current one in Debian.
    carried = next((built.tree / "dist").glob("*.deb"))
    with machine(full=True) as debian:
        debian.copy_in(carried, "/srv/recodex-monitor.deb")
        debian.run("dpkg", "--unpack", "/srv/recodex-monitor.deb")
        debian.copy_in(tree, "/srv/tree")
        for library in ("kafka", "pywhatwgurl"):
            carried_to = f"/usr/lib/python3/dist-packages/{library}"
            debian.run("ln", "-s", f"/usr/share/recodex-monitor/{library}", carried_to)
        # Debian's plugin for coroutine tests is older; this one is plain Python.
        package = Path(pytest_asyncio.__file__).parent
        for folder in package.parent.glob(f"{package.name}*"):
            debian.copy_in(folder, f"/srv/tree/{folder.name}")
        done = debian.run(
            # Here the versions matter, and not how far the properties search.
            *("env", "--chdir=/srv/tree", "PYTHONDONTWRITEBYTECODE=1", "RECODEX_TEST_EXAMPLES=5"),
            *("python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--maxfail=25"),
            # Debian's pytest cannot leave out plugins that nobody named.
            *("-o", "addopts=--strict-markers --import-mode=importlib"),
            # schemathesis, kubernetes-validate and grimp are not in Debian.
            "--ignore=tests/docs/test_generated.py",
            "--ignore=tests/web/test_schema.py",
            "--ignore=tests/packaging/test_helm.py",
            "--ignore=tests/packaging/test_kubernetes.py",
            # Nor are what these test against: other clients of Kafka and gRPC, a mail server.
            "--ignore=tests/aggregation/test_kafka.py",
            "--ignore=tests/alerts/test_mail.py",
            "--ignore=tests/bus/test_kafka_access.py",
            "--ignore=tests/bus/test_kafka_topics.py",
            "--ignore=tests/probes/test_grpc.py",
            # It asks git, which is not in this machine.
            "--deselect=tests/docs/test_wording.py::test_the_pages_pass",
            *("-m", "not integration_test and not end_to_end and not distro"),
            check=False,
            timeout_s=800,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
