"""GET /metrics/probes: the last result of each site, under the names of blackbox_exporter.

Dashboards and rules for blackbox_exporter work with these series. The label ``job`` is the id of
the job; Prometheus keeps it with ``honor_labels: true``, else it becomes ``exported_job``. A site
that is checked from several locations has a series for each, with the label ``location``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from monitor.files.threads import call_aside
from monitor.messages import Result
from monitor.probes.job import Job
from monitor.web.http.problems import ERRORS
from monitor.web.jobs.registry import JobRegistry
from monitor.web.routes.exposition import encoder

__all__ = ["router"]

_PHASES = ("resolve", "connect", "tls", "processing", "transfer")

responses: Any = {
    **ERRORS,
    200: {
        "description": "The metrics",
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            "application/openmetrics-text": {"schema": {"type": "string"}},
        },
    },
}


def router(book: JobRegistry) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["health"])

    @routes.get(
        "/metrics/probes",
        summary="The last result of each site, under the names of blackbox_exporter",
        response_class=Response,
        responses=responses,
    )
    async def site_metrics(request: Request) -> Response:
        await book.refresh()
        checked = await book.checked()
        encode, media_type = encoder(request.headers.get("accept", ""))
        # Ten thousand sites have a hundred thousand samples.
        body = await call_aside(_render, encode, checked)
        return Response(body, headers={"content-type": media_type})

    return routes


def _render(encode: Any, checked: Sequence[tuple[Job, Result]]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Sites(checked))
    text: bytes = encode(registry)
    return text


class _Sites(Collector):
    def __init__(self, checked: Sequence[tuple[Job, Result]]) -> None:
        self._checked = [(_labels(job, result), result) for job, result in checked]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield one family after the other, each with all sites."""
        yield self._family("probe_success", "Whether the site is up", lambda r: r.up)
        yield self._family(
            "probe_duration_seconds", "Length of the last attempt", lambda r: r.duration
        )
        yield self._family(
            "probe_http_status_code",
            "The HTTP status; 0 without an answer",
            lambda r: r.status or 0,
            only="http",
        )
        yield self._phases()
        yield self._family(
            "probe_ssl_earliest_cert_expiry",
            "The earliest expiry of the verified certificates, in seconds since the epoch",
            lambda r: r.certificate_expires_at,
        )

    def _family(self, name: str, text: str, value: Any, only: str | None = None) -> Any:
        family = GaugeMetricFamily(name, text)
        for labels, result in self._checked:
            found = value(result)
            if found is not None and only in (None, labels["kind"]):
                family.samples.append(Sample(name, labels, float(found)))
        return family

    def _phases(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "probe_http_duration_seconds",
            "Length of each phase, over all redirects",
        )
        for labels, result in self._checked:
            if labels["kind"] == "http":
                for phase, seconds in _lengths(result):
                    family.samples.append(Sample(family.name, {**labels, "phase": phase}, seconds))
        return family


def _labels(job: Job, result: Result) -> dict[str, str]:
    labels = {"job": str(job.id), "name": job.name, "kind": job.kind, "target": job.shown_url}
    return labels | {"location": result.location} if result.location else labels


def _lengths(result: Result) -> Iterator[tuple[str, float]]:
    for phase in _PHASES:
        yield phase, getattr(result.phases, phase)
