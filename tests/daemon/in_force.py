"""How the value of a key that is in force is seen from outside the config."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import zmq.auth

from monitor.relay.router_receiver import RouterReceiver
from monitor.transport.router import Router
from tests.daemon.in_process import Running
from tests.waiting import until

__all__ = ["SEEN"]


def log_file(now: Running) -> Any:
    """Return the handler that writes the log's file."""
    return now.daemon._log._file._handler


async def served_certificate(now: Running) -> str:
    """Return the file whose certificate a new client of the relay gets."""
    return await certificate_at(now, now.relay.server.addresses[0])


def unverified() -> ssl.SSLContext:
    """Return a client's TLS context that accepts every certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def certificate_at(now: Running, address: tuple[str, int]) -> str:
    """Return the file whose certificate is served at an address."""
    host, port = address
    _, writer = await asyncio.open_connection(host, port, ssl=unverified())
    served = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    files = [now.folder / "one.pem", now.folder / "two.pem"]
    pem = ssl.DER_cert_to_PEM_cert(served)
    return next(str(file) for file in files if pem in file.read_text())


async def served_key(now: Running) -> str:
    """Return the file whose key a new client of the relay is served with."""
    return (await served_certificate(now)).replace(".pem", "-key.pem")


def allowed_brokers(now: Running) -> str:
    """Return the directory of the keys that may connect."""
    receiver = now.relay.receiver
    assert isinstance(receiver, RouterReceiver)
    return folder_of(now, receiver._router)


def folder_of(now: Running, router: Router) -> str:
    """Return the directory of the keys that may connect to a socket."""
    allowed = router._allowed.keys
    folders = [now.folder / "one", now.folder / "two"]
    return next(str(each) for each in folders if zmq.auth.load_certificates(each).keys() == allowed)


def running_jobs(now: Running) -> Any:
    """Return the jobs as they are checked, and those that are not to be."""
    listed, runner = now.probes.jobs.jobs, now.probes.runner
    return [runner.job_status(job.id).job if job.active else job for job in listed]


async def watched(now: Running) -> Any:
    """Return what the cluster is watched by, once the watches are those of the config."""
    section = now.daemon.config.cluster
    with contextlib.suppress(TimeoutError):
        await until(lambda: now.cluster._session and now.cluster._session._settings == section)
    return now.cluster._session._settings


async def watched_custom_kinds(now: Running) -> Any:
    """Return the custom resources that are watched."""
    return (await watched(now)).custom_kinds


async def largest_body(now: Running) -> int:
    """Return the limit that a request learns of."""
    host, port = now.web.addresses[0]

    def ask() -> str:
        client = http.client.HTTPSConnection(host, port, timeout=60, context=unverified())
        with contextlib.closing(client):
            client.putrequest("POST", "/job")
            client.putheader("content-length", str(2**50))
            client.endheaders()
            return str(json.loads(client.getresponse().read())["detail"])

    return int((await asyncio.to_thread(ask)).split()[-2])


def stall_of_web(now: Running) -> float:
    """Return how long a client of the API may take nothing, here and in the kernel."""
    stall: float = now.web._connections.settings.client_stall
    for listener in now.web._listeners:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == stall * 1000
    return stall


async def key_of_api(now: Running) -> str:
    """Return the file whose key a new client of the API is served with."""
    return (await certificate_at(now, now.web.addresses[0])).replace(".pem", "-key.pem")


def authority_of_clients(now: Running) -> str | None:
    """Return the file whose authorities sign what clients of the API need."""
    assert now.web._tls is not None
    newest = now.web._tls._newest
    assert now.web._tls.served.verify_mode == newest.verify_mode
    needed = newest.verify_mode is ssl.CERT_REQUIRED and newest.cert_store_stats()["x509"]
    return f"{now.folder}/one.pem" if needed else None


See = Callable[[Running], Any]


def under(section: str, found: Mapping[str, See]) -> dict[str, See]:
    return {f"{section}.{name}": see for name, see in found.items()}


# How the value in force of each key is seen that a reload takes. The entry of a section or a list
# is for all keys in it that have no entry of their own. A key without any fails the test.
SEEN: dict[str, See] = {
    "relay": lambda now: now.relay.channels.limits,
    **under(
        "relay",
        {
            "allow_remote_exit": lambda now: now.relay._settings.allow_remote_exit,
            "tls.certificate": served_certificate,
            "tls.key": served_key,
            "curve.public_keys_dir": allowed_brokers,
        },
    ),
    **under(
        "logger",
        {
            "file": lambda now: log_file(now).baseFilename,
            "level": lambda now: logging.getLevelName(logging.getLogger("monitor").level).lower(),
            "max-size": lambda now: log_file(now).maxBytes,
            "rotations": lambda now: log_file(now).backupCount,
        },
    ),
    **under(
        "probes",
        {
            "source": lambda now: now.probes.source,
            "jobs_file": lambda now: str(now.probes._source._file),
            # As the producer of the first range.
            "websites_per_container": lambda now: len(now.probes.runner.job_ids()),
            "id": lambda now: now.probes.runner.producer,
            "location": lambda now: now.probes.runner.location,
            "quorum": lambda now: now.probes.runner.quorum,
            "concurrency": lambda now: now.probes.runner._slots.limit,
            "jobs": running_jobs,
        },
    ),
    "aggregation": lambda now: now.aggregation._settings,
    "cluster": watched,
    "cluster.custom_kinds": watched_custom_kinds,
    "logs": lambda now: now.logs.service.settings,
    "alerts": lambda now: now.alerts._settings,
    "logs.curve.public_keys_dir": lambda now: folder_of(now, now.logs.zeromq._router),
    "logs.max_pending_bytes": lambda now: now.logs.service.committer.max_pending_bytes,
    "api": lambda now: now.web._connections.settings,
    **under(
        "api",
        {
            "tokens_file": lambda now: str(now.daemon._services.tokens.file),
            "origins": lambda now: list(now.web._access.origins),
            "tls.certificate": lambda now: certificate_at(now, now.web.addresses[0]),
            "tls.key": key_of_api,
            "tls.client_ca": authority_of_clients,
            "trusted_proxies": lambda now: now.web._connections.settings.trusted_proxies,
            "max_body_bytes": largest_body,
            "client_stall": stall_of_web,
        },
    ),
}
