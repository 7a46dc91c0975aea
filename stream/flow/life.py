"""The settings of a daemon's life; ``service`` lives by them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from .settings import Settings


class ServiceSettings(Settings):
    """How the daemon lives and dies, and where it says how it is."""

    host: str = Field(
        "127.0.0.1",
        description="address the page, /metrics, /healthz and /readyz listen on. Another than this machine's own needs "
        "the token for all but /healthz",
    )
    port: int = Field(9464, ge=0, le=65535, description="port of the page and the metrics; 0 takes a free one")
    page: bool = Field(True, description="the live page; false leaves the metrics")
    names: tuple[str, ...] = Field(
        (), description="further names under which browsers reach it, where a proxy or an SSH tunnel stands before it"
    )
    token_file: Path | None = Field(
        None, description="file with the token that changes need; default: page.token where files go, made at start"
    )
    open_metrics: bool = Field(
        False, description="give /metrics and /readyz without the token, where host is not this machine's own"
    )
    grace_s: float = Field(
        20, gt=0, description="time to drain after SIGTERM; at three quarters of it the rest is dropped"
    )
    silent_s: float = Field(30, gt=0, description="not ready when the source gave no shot for this long")
    failure_limit: float = Field(
        0.05, ge=0, le=1, description="not ready when more than this share of the frames read lately failed"
    )
    failure_window_s: float = Field(60, gt=0, description="how far back lately goes")
    failure_least: int = Field(1, ge=1, description="fewer frames than this within that time say nothing")

    def token_at(self, base: Path, directory: Path) -> Path:
        """The file with the token: ``token_file``, from ``base`` on where it is relative, or one in ``directory``."""
        return directory / "page.token" if self.token_file is None else base / self.token_file
