"""/metrics, /healthz and /readyz."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prometheus_client import exposition
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..flow.metrics import Metrics
from .lanes import Lane


class Vitals:
    """/metrics, /healthz and /readyz: the same with and without a page."""

    def __init__(self, metrics: Metrics, problems: Callable[[], list[str]], lane: Lane) -> None:
        self._metrics = metrics
        self._registry = metrics.registry()
        self._problems = problems
        self._lane = lane

    def routes(self) -> list[Route]:
        """Their addresses."""
        return [
            Route("/metrics", self.metrics),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
        ]

    async def metrics(self, request: Request) -> Response:
        """What Prometheus scrapes, in the format it asks for."""
        make, kind = exposition.choose_encoder(request.headers.get("accept", ""))
        body = await self._lane.do(lambda: make(self._registry))
        return Response(body, headers={"Content-Type": kind})

    async def healthz(self, _: Request) -> Response:
        """The process lives."""
        return say(200, {"alive": True, "beamline": self._metrics.beamline})

    async def readyz(self, _: Request) -> Response:
        """Whether the daemon can be relied on, and why not."""
        found = await self._lane.do(self._problems)
        return say(503 if found else 200, {"ready": not found, "problems": found})


def say(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """A short answer in JSON."""
    return Response(json.dumps(body).encode() + b"\n", status, headers, media_type="application/json")
