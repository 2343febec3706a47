"""Names the package of a missing library.

The packages for Debian and Fedora require the libraries of the relay and recommend the others, so
the library of another part may be missing. The error is one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from monitor.errors import MissingPackageError

__all__ = ["LIBRARIES", "needed_by", "package_of"]

# Module -> (Debian package, PyPI package); Fedora and RHEL provide it as python3dist(PyPI name).
LIBRARIES: Mapping[str, tuple[str, str]] = {
    "apprise": ("apprise", "apprise"),
    "crc32c": ("python3-crc32c", "crc32c"),
    "dns": ("python3-dnspython", "dnspython"),
    "fastapi": ("python3-fastapi", "fastapi"),
    "idna": ("python3-idna", "idna"),  # pywhatwgurl needs it
    "jmespath": ("python3-jmespath", "jmespath"),
    "kafka": ("", "kafka-python"),  # too old in Debian: the packages include their own
    "kubernetes": ("python3-kubernetes", "kubernetes"),
    "lz4": ("python3-lz4", "lz4"),
    "msgspec": ("python3-msgspec", "msgspec"),
    "prometheus_client": ("python3-prometheus-client", "prometheus-client"),
    "psycopg2": ("python3-psycopg2", "psycopg2"),
    "pycurl": ("python3-pycurl", "pycurl"),
    "pywhatwgurl": ("", "pywhatwgurl"),  # not in Debian: the packages include their own
    "requests": ("python3-requests", "requests"),
    "rich": ("python3-rich", "rich"),
    "sdnotify": ("python3-sdnotify", "sdnotify"),
    "snappy": ("python3-snappy", "python-snappy"),
    "urllib3": ("python3-urllib3", "urllib3"),
    "uvicorn": ("python3-uvicorn", "uvicorn"),
    "uvloop": ("python3-uvloop", "uvloop"),
    "websockets": ("python3-websockets", "websockets"),
    "yaml": ("python3-yaml", "pyyaml"),
    "zmq": ("python3-zmq", "pyzmq"),
    "zstandard": ("python3-zstandard", "zstandard"),
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
        raise MissingPackageError(user, module, package_of(module)) from None


def package_of(module: str) -> str:
    """Return the packages that have one of the LIBRARIES, for an error."""
    debian, pypi = LIBRARIES[module]
    return f"{debian} (Debian) or python3dist({pypi}) (Fedora, RHEL)" if debian else pypi
