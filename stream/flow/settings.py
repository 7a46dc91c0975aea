"""Settings: pydantic models read from YAML, all mistakes at once, each with its file, line, field and remedy."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """The base of every block of settings: unknown words are mistakes, and settings never change while running."""

    model_config = ConfigDict(extra="forbid", frozen=True)
