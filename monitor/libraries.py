"""Which package has the library that a part needs and this installation lacks.

The packages for Debian and Fedora require what the relay imports and recommend the rest, so
a part that is turned on may find its library missing, which is reported in one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from monitor.errors import MissingPackageError

__all__ = ["LIBRARIES", "needed_by"]

# Module -> (Debian's package, PyPI's); Fedora and RHEL provide each as python3dist(PyPI's).
LIBRARIES: Mapping[str, tuple[str, str]] = {
    "crc32c": ("python3-crc32c", "crc32c"),
    "fastapi": ("python3-fastapi", "fastapi"),
    "kafka": ("", "kafka-python"),  # Debian's is too old: the packages carry their own
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
    """Turn a library's absence into MissingPackageError; ``user`` is the part or command.

    Another missing module is a defect, and the error stays as it is.
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
