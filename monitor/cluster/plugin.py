"""Runs the credential plugin of a kubeconfig: the ``exec`` of a user. Blocks; for threads.

The ``kubernetes`` package waits for a plugin without a limit and hides why it failed, so this runs
it: within a limit, with bounded output, and in a process group of its own that ends with it.

Source: the Kubernetes reference (client.authentication.k8s.io/v1).
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from monitor.errors import MonitorError

__all__ = ["Credential", "Plugin", "PluginError"]

_MAX_OUTPUT_BYTES = 1024 * 1024
_MAX_SHOWN = 200


class PluginError(MonitorError):
    """The plugin gave no credential; the text never has its output."""


class Credential(NamedTuple):
    """What a plugin gave: a token, a client certificate with its key (PEM), or both."""

    token: str | None
    certificate: str | None
    key: str | None
    expires_at: float | None
    """In s since the epoch."""


class _Environment(msgspec.Struct):
    name: str
    value: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    command: str
    api_version: str = "client.authentication.k8s.io/v1"
    args: list[str] | None = None
    env: list[_Environment] | None = None
    install_hint: str | None = None
    provide_cluster_info: bool = False


class _Status(msgspec.Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class _Answer(msgspec.Struct):
    status: _Status


class Plugin:
    """Runs plugins one at a time; :meth:`stop` ends the one that runs, from any thread."""

    def __init__(self, *, limit_s: float = 20.0) -> None:
        self.running: str | None = None
        """The name of the plugin that runs now."""
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the plugin that runs; no other one starts any more."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                _kill(self._process)

    def run(self, plugin: Any, cluster: Mapping[str, Any], directory: Path) -> Credential:
        """Run the plugin of a kubeconfig in ``directory``; raises PluginError."""
        try:
            spec = msgspec.convert(plugin, _Spec)
        except msgspec.ValidationError:
            raise PluginError(
                "the credential plugin has no command, or keys of other types"
            ) from None
        name = Path(spec.command).name
        self.running = name
        try:
            return self._answer(name, self._output(name, spec, cluster, directory))
        finally:
            self.running = None

    def _output(self, name: str, spec: _Spec, cluster: Mapping[str, Any], directory: Path) -> bytes:
        command = spec.command
        if os.sep in command:
            command = str(directory / command)
        info: dict[str, Any] = {"interactive": False}
        if spec.provide_cluster_info:
            info["cluster"] = dict(cluster)
        request = {"apiVersion": spec.api_version, "kind": "ExecCredential", "spec": info}
        environment = {
            **os.environ,
            **{each.name: each.value for each in spec.env or ()},
            "KUBERNETES_EXEC_INFO": msgspec.json.encode(request).decode(),
        }
        try:
            with self._lock:
                if self._stopped:
                    raise PluginError("stopping")
                process = self._process = subprocess.Popen(
                    [command, *(spec.args or ())],
                    cwd=directory,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
        except FileNotFoundError:
            hint = f"; {_line(spec.install_hint)}" if spec.install_hint else ""
            raise PluginError(f"the credential plugin {name} is not installed{hint}") from None
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or "its arguments are not valid"
            raise PluginError(f"the credential plugin {name} cannot run: {problem}") from None
        try:
            output, said = self._read(name, process)
            status = process.wait(max(0.1, self._limit_s))
        except subprocess.TimeoutExpired:
            raise self._late(name) from None
        finally:
            with self._lock:
                self._process = None
            _kill(process)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        if status != 0:
            why = f": {_line(said.decode('utf-8', 'replace'))}" if said.strip() else ""
            raise PluginError(f"the credential plugin {name} failed with status {status}{why}")
        return output

    def _read(self, name: str, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        """Return stdout and the beginning of stderr."""
        deadline = time.monotonic() + self._limit_s
        assert process.stdout is not None
        assert process.stderr is not None
        out, said = process.stdout.fileno(), process.stderr.fileno()
        read = {out: bytearray(), said: bytearray()}
        with selectors.DefaultSelector() as selector:
            for pipe in read:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise self._late(name)
                for key, _ in ready:
                    piece = os.read(key.fd, 65536)
                    if not piece:
                        selector.unregister(key.fd)
                    elif key.fd == out and len(read[out]) + len(piece) > _MAX_OUTPUT_BYTES:
                        raise PluginError(f"the credential plugin {name} does not stop writing")
                    elif len(read[key.fd]) < _MAX_OUTPUT_BYTES:
                        read[key.fd] += piece
        return bytes(read[out]), bytes(read[said])

    def _late(self, name: str) -> PluginError:
        return PluginError(
            f"the credential plugin {name} did not answer within {self._limit_s:g} s"
        )

    def _answer(self, name: str, output: bytes) -> Credential:
        try:
            status = msgspec.json.decode(output, type=_Answer).status
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise PluginError(f"the credential plugin {name} returned no ExecCredential") from None
        if not status.token and not (status.client_certificate_data and status.client_key_data):
            raise PluginError(
                f"the credential plugin {name} returned neither a token nor a certificate"
            )
        expires = status.expiration_timestamp
        return Credential(
            status.token,
            status.client_certificate_data,
            status.client_key_data,
            expires.timestamp() if expires is not None else None,
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process with all that it started, if it still runs or something holds its group."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def _line(text: str) -> str:
    return " ".join(text.split())[:_MAX_SHOWN]
