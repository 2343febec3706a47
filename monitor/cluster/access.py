"""How the API server is reached: address, credentials, certificates and proxy. Blocks; for threads.

The ``kubernetes`` package reads the kubeconfig, or the service account of the pod. An
:class:`Access` is made from that at once: its TLS context has all certificates in memory, so no
file is needed later, and its stamps tell whether a file has changed since. Proxies are the same
with all versions of the package: ``proxy-url``, or else the environment (HTTPS_PROXY, HTTP_PROXY,
NO_PROXY).
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3

from monitor.cluster.kubeconfig import (
    INLINE,
    AccessError,
    current,
    impersonation,
    plugin_cluster,
    read_limited,
    take_inline,
    take_token_file,
)
from monitor.cluster.plugin import Credential, Plugin
from monitor.cluster.settings import read_kubeconfig
from monitor.files.reading import FileStamp, file_stamp

__all__ = ["SERVICE_ACCOUNT", "Access", "AccessError", "load_access"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

# Credentials are renewed this many s before they expire.
_EARLY_S = 10.0
# Three unanswered probes: a lost peer is detected within 30 s.
_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


@dataclass(frozen=True, slots=True)
class Access:
    """A server, the connections to it, and the headers of each request."""

    host: str
    pool: urllib3.PoolManager
    headers: urllib3.HTTPHeaderDict
    expires_at: float | None
    stamps: Mapping[str, FileStamp | None]

    def is_outdated(self) -> bool:
        """Return whether a file has changed since, or the credentials are about to expire."""
        if self.expires_at is not None and time.time() >= self.expires_at - _EARLY_S:
            return True
        return any(file_stamp(file) != stamp for file, stamp in self.stamps.items())

    def close(self) -> None:
        """Close all connections that are not in use."""
        self.pool.clear()


def load_access(
    kubeconfig: Path | None, *, service_account: Path, plugin: Plugin, connections: int
) -> Access:
    """Read all of it again; raises AccessError, PluginError, and what the package raises."""
    from kubernetes import client
    from kubernetes.config.incluster_config import InClusterConfigLoader
    from kubernetes.config.kube_config import KubeConfigLoader

    configuration: Any = client.Configuration()
    in_cluster: Any = InClusterConfigLoader
    from_file: Any = KubeConfigLoader
    config: dict[str, Any] = {}
    cluster: dict[str, Any] = {}
    user: dict[str, Any] = {}
    credential: Credential | None = None
    files: list[str] = []
    if kubeconfig is None:
        token, authority = str(service_account / "token"), str(service_account / "ca.crt")
        files += [token, authority]
        stamps = {file: file_stamp(file) for file in files}
        for file in files:
            if Path(file).exists():
                # The package would read whatever it is, without an end.
                read_limited(file)
        in_cluster(token_filename=token, cert_filename=authority).load_and_set(configuration)
    else:
        files.append(str(kubeconfig))
        stamps = {str(kubeconfig): file_stamp(kubeconfig)}
        config = read_kubeconfig(kubeconfig)
        cluster, user = current(config, "cluster"), current(config, "user")
        inline = {key: take_inline(cluster, user, key) for key in INLINE}
        for section in (cluster, user):
            for file_key in (
                "certificate-authority",
                "client-certificate",
                "client-key",
                "tokenFile",
            ):
                if isinstance(name := section.get(file_key), str) and name:
                    # Before it is read: a change in between is found by the next comparison.
                    file = os.path.normpath(kubeconfig.parent / name)
                    stamps[file] = file_stamp(file)
        take_token_file(user, kubeconfig.parent)
        if "exec" in user and not user.keys() & {"token", "tokenFile", "auth-provider"}:
            known = plugin_cluster(
                cluster, inline["certificate-authority"], folder=kubeconfig.parent
            )
            credential = plugin.run(user.pop("exec"), known, kubeconfig.parent)
            if credential.token:
                user["token"] = credential.token
        try:
            from_file(config_dict=config, config_base_path=str(kubeconfig.parent)).load_and_set(
                configuration
            )
        except AttributeError:
            # So it fails for a provider whose tool or package is not there.
            raise AccessError("the auth-provider gives no token; use a plugin (exec)") from None
    host = str(configuration.host).rstrip("/")
    if urlsplit(host).scheme not in {"http", "https"}:
        raise AccessError("the server's address is not a URL with http or https")
    headers = urllib3.HTTPHeaderDict(impersonation(user))
    for setting in configuration.auth_settings().values():
        if setting["in"] == "header" and setting["value"]:
            headers[setting["key"]] = setting["value"].strip()
    context = None
    if host.startswith("https"):
        authority_pem, certificate, key = (
            (inline["certificate-authority"], inline["client-certificate"], inline["client-key"])
            if kubeconfig is not None
            else (None, None, None)
        )
        if credential is not None and credential.certificate and credential.key:
            certificate, key = credential.certificate.encode(), credential.key.encode()
        context = _tls_context(
            authority_pem or read_limited(configuration.ssl_ca_cert),
            certificate or read_limited(configuration.cert_file),
            key or read_limited(configuration.key_file),
            verify=bool(configuration.verify_ssl),
        )
    return Access(
        host=host,
        pool=_pool(
            host,
            proxy=cluster.get("proxy-url"),
            context=context,
            server_name=cluster.get("tls-server-name"),
            connections=connections,
        ),
        headers=headers,
        expires_at=credential.expires_at if credential is not None else None,
        stamps=stamps,
    )


def _tls_context(
    authority: bytes | None, certificate: bytes | None, key: bytes | None, *, verify: bool
) -> ssl.SSLContext:
    try:
        pem = authority.decode("ascii", "ignore") if authority else None
        context = ssl.create_default_context(cadata=pem)
    except ssl.SSLError:
        raise AccessError("the certificate-authority is not a PEM certificate") from None
    # As other clients of Kubernetes: many clusters' authorities lack an extension that this wants.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        try:
            with _in_memory(certificate + b"\n" + (key or b"")) as file:
                # Without a password, a key that needs one would be asked for on the terminal.
                context.load_cert_chain(file, password=lambda: "")
        except (ssl.SSLError, ValueError):
            raise AccessError(
                "the client certificate and its key do not match, or are not PEM"
            ) from None
    return context


@contextmanager
def _in_memory(content: bytes) -> Any:
    """Give the content as a file for a library that reads only files; nothing is written to
    disk."""
    descriptor = os.memfd_create("client-certificate")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _pool(
    host: str,
    *,
    proxy: Any,
    context: ssl.SSLContext | None,
    server_name: Any,
    connections: int,
) -> urllib3.PoolManager:
    options: dict[str, Any] = {
        "num_pools": 4,
        "maxsize": connections,
        "socket_options": _KEEPALIVE,
    }
    if context is not None:
        options["ssl_context"] = context
        if context.verify_mode is ssl.CERT_NONE:
            options |= {"cert_reqs": "CERT_NONE", "assert_hostname": False}
        if isinstance(server_name, str) and server_name:
            options["server_hostname"] = server_name
    address = proxy if isinstance(proxy, str) and proxy else _environment_proxy(host)
    if not address:
        return urllib3.PoolManager(**options)
    if "://" not in address:
        address = f"http://{address}"
    parts = urlsplit(address)
    if parts.scheme.startswith("socks"):
        try:
            from urllib3.contrib.socks import SOCKSProxyManager
        except ImportError:
            raise AccessError("a SOCKS proxy needs the Python module socks (PySocks)") from None
        return SOCKSProxyManager(address, **options)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise AccessError("the proxy's address is not a URL with http, https or socks5")
    headers = None
    if parts.username:
        account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=account)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(address, proxy_headers=headers, **options)


def _environment_proxy(host: str) -> str | None:
    from requests.utils import get_environ_proxies, select_proxy

    # With the networks of NO_PROXY, which urllib leaves out.
    return select_proxy(host, get_environ_proxies(host, no_proxy=None))
