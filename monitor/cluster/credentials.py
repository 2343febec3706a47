"""Keeps the access to the API server current; used by the threads of all watches.

The credentials are loaded by one thread at a time, aside, because a plugin or a file may hang. They
are loaded again when a file has changed, before they expire, and after a failure that they may
cause.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import urllib3

from monitor.cluster.access import Access, load_access
from monitor.cluster.failures import ApiError, Reason, one_line
from monitor.cluster.plugin import Plugin, PluginError
from monitor.errors import SettingError
from monitor.files.threads import begin_aside

__all__ = ["Credentials"]

# How long loading may take; a plugin has a shorter limit of its own.
_LOAD_S = 60.0
_POLL_S = 0.1
# How often the files are looked at while requests succeed.
_LOOK_S = 1.0


class Credentials:
    """The current access; loads nothing before it is asked for."""

    def __init__(self, kubeconfig: Path | None, *, service_account: Path, connections: int) -> None:
        self._kubeconfig = kubeconfig
        self._service_account = service_account
        self._connections = connections
        self._plugin = Plugin()
        self._lock = threading.Lock()
        # Held while loading, which may take a while; never by stop().
        self._loading = threading.Lock()
        self._access: Access | None = None
        self._looked_at = 0.0
        self._failures = 0
        self._failure: ApiError | None = None
        self._stopping = False

    @property
    def waiting(self) -> str | None:
        """What takes so long, while it does."""
        plugin = self._plugin.running
        return None if plugin is None else f"waiting for the credential plugin {plugin}"

    def stop(self) -> None:
        """End a plugin that runs, and let those that wait raise ENDED."""
        self._stopping = True
        self._plugin.stop()

    def forget(self) -> None:
        """Load everything again for the next request."""
        with self._lock:
            access, self._access = self._access, None
        if access is not None:
            access.close()

    def after_failure(self, error: urllib3.exceptions.HTTPError) -> None:
        """Look at the files before the next request; for TLS and proxies, load everything again."""
        if isinstance(error, urllib3.exceptions.SSLError | urllib3.exceptions.ProxyError):
            self.forget()
        else:
            self._looked_at = 0.0

    def current(self) -> Access:
        """Return the access, loaded again if it has to be; raises ApiError."""
        failures = self._failures
        while not self._loading.acquire(timeout=_POLL_S):
            if self._stopping:
                raise ApiError(Reason.ENDED, "stopping")
        try:
            access, now = self._access, time.monotonic()
            if access is not None and now - self._looked_at >= _LOOK_S:
                self._looked_at = now
                if access.is_outdated():
                    self.forget()
                    access = None
            if access is None:
                if self._failure is not None and self._failures != failures:
                    # Another thread has just tried.
                    raise self._failure
                access = self._load()
                with self._lock:
                    self._access, self._looked_at = access, time.monotonic()
            return access
        except ApiError as error:
            self._failures += 1
            self._failure = error
            raise
        finally:
            self._loading.release()

    def _load(self) -> Access:
        """Load the access in a thread that may hang; raises ApiError."""
        loading = begin_aside(
            lambda: load_access(
                self._kubeconfig,
                service_account=self._service_account,
                plugin=self._plugin,
                connections=self._connections,
            )
        )
        deadline = time.monotonic() + _LOAD_S
        while True:
            try:
                return loading.result(_POLL_S)
            except TimeoutError:
                if self._stopping:
                    raise ApiError(Reason.ENDED, "stopping") from None
                if loading.done() or time.monotonic() > deadline:
                    raise self._refused(f"no credentials within {_LOAD_S:g} s") from None
            except PluginError as error:
                raise ApiError(Reason.UNAUTHORIZED, str(error)) from None
            except SettingError as error:
                raise self._refused(error.problem) from None
            except Exception as error:  # noqa: BLE001 - the package raises errors of any kind
                if self._kubeconfig is None and not os.environ.get("KUBERNETES_SERVICE_HOST"):
                    problem = "not running in a pod of a cluster; set cluster.kubeconfig"
                    raise ApiError(Reason.UNAUTHORIZED, problem) from None
                raise self._refused(str(error)) from None

    def _refused(self, problem: str) -> ApiError:
        where = self._kubeconfig or self._service_account
        return ApiError(Reason.UNAUTHORIZED, f"{where}: {one_line(problem)}")
