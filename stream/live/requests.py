"""Reads what a request carries, and refuses what is too large, malformed or not meant for this server."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from .access import Denied

WORD = re.compile(r"[A-Za-z0-9._:+@~=,-]{1,200}", re.ASCII)
QUERY_FIELDS = 16


async def read_body(request: Request, limit: int) -> dict[str, Any]:
    """The JSON object in a request; an empty body is an empty object. Raises ``Denied``.

    Refused: more than ``limit`` bytes, other text than UTF-8, numbers that are not finite, a name given twice, nesting
    that Python cannot follow, anything but an object on top.
    """
    told = request.headers.get("content-length", "0")
    if not told.isdigit() or len(told) > 12 or int(told) > limit:
        raise Denied(413, f"too large: at most {limit} bytes")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise Denied(413, f"too large: at most {limit} bytes")
    return parse(bytes(body)) if body.strip() else {}


def parse(body: bytes) -> dict[str, Any]:
    """See ``read_body``."""
    try:
        value = json.loads(
            body.decode("utf-8"), parse_float=_finite, parse_constant=_finite, object_pairs_hook=_without_doubles
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # lone surrogates cannot be written down later
    except (ValueError, RecursionError):
        raise Denied(400, "not understood: send one JSON object in UTF-8, with finite numbers") from None
    if not isinstance(value, dict):
        raise Denied(400, "not understood: send a JSON object")
    return value


def read_query(request: Request) -> dict[str, str]:
    """What follows the question mark. Raises ``Denied`` for too many fields or one that is given twice."""
    try:
        pairs = parse_qsl(request.url.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS, errors="strict")
    except ValueError:
        raise Denied(400, f"the address is not understood: at most {QUERY_FIELDS} fields in UTF-8") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Denied(400, "a field of the address is given twice")
    return found


def word(text: str) -> str:
    """A kind, name or action out of an address. Raises ``Denied`` for what can be none, such as ``..``."""
    if not WORD.fullmatch(text) or set(text) == {"."}:
        raise Denied(404, "not here")
    return text


def text_of(body: dict[str, Any], field: str, limit: int = 200) -> str:
    """A text of a body. Raises ``Denied``."""
    value = body.get(field)
    if not isinstance(value, str) or len(value) > limit:
        raise Denied(400, f"{field}: give a text of at most {limit} characters")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found
