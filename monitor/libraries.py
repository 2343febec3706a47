"""Names the package of a missing library.

The packages for Debian and Fedora require the libraries of the relay and recommend the others, so
the library of another part may be missing. The error is one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from monitor.errors import MissingPackageError

__all__ = ["LIBRARIES", "needed_by"]

# Module -> (Debian package, PyPI package); Fedora and RHEL provide it as python3dist(PyPI name).
LIBRARIES: Mapping[str, tuple[str, str]] = {
    "crc32c": ("python3-crc32c", "crc32c"),
    "fastapi": ("python3-fastapi", "fastapi"),
    "kafka": ("", "kafka-python"),  # too old in Debian: the packages include their own
    "kubernetes": ("python3-kubernetes", "kubernetes"),
    "msgspec": ("python3-msgspec", "msgspec"),
    "prometheus_client": ("python3-prometheus-client", "prometheus-client"),
    "psycopg2": ("python3-psycopg2", "psycopg2"),
    "pycurl": ("python3-pycurl", "pycurl"),
    "requests": ("python3-requests", "requests"),
    "rich": ("python3-rich", "rich"),
    "sdnotify": ("python3-sdnotify", "sdnotify"),
    "urllib3": ("python3-urllib3", "urllib3"),
    "uvicorn": ("python3-uvicorn", "uvicorn"),
    "uvloop": ("python3-uvloop", "uvloop"),
    "websockets": ("python3-websockets", "websockets"),
    "yaml": ("python3-yaml", "pyyaml"),
    "zmq": ("python3-zmq", "pyzmq"),
}


@contextlib.contextmanager
def needed_by(user: str) -> Iterator[None]:
    """Turn a missing library into MissingPackageError; ``user`` is the part or command.

    Another missing module is a defect, and its error stays.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in LIBRARIES:
            raise
        debian, pypi = LIBRARIES[module]
        package = f"{debian} (Debian) or python3dist({pypi}) (Fedora, RHEL)" if debian else pypi
        raise MissingPackageError(user, module, package) from None
