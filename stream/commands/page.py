"""``beamsieve page``: where a daemon's page is, with the token that opens it to changes."""

from __future__ import annotations

import ipaddress
import socket
from typing import Annotated

import typer

from ..errors import plain
from ..live.access import token_in
from .run import Config, Set, config_errors, read


def page(
    config: Config,
    set_: Set = None,
    host: Annotated[str | None, typer.Option("--host", help="name of the daemon's machine, for the link")] = None,
    only_token: Annotated[bool, typer.Option("--token", help="print the token alone, for scripts")] = False,
) -> None:
    """Print the link to a daemon's page, with the token that lets a person change things there.

    Whoever has the link can change the daemon. The token is in a file that only the daemon's user can read: run this as
    that user. It is made if the daemon has not been started yet.

    Exit code 1: the token cannot be read. 2: a wrong configuration.
    """
    with config_errors():
        settings, where = read(config, set_ or [])
    service = settings.service
    path = service.token_at(where.base, where.base / settings.files.directory)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        token = token_in(path)
    except OSError as error:
        typer.echo(plain(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(token if only_token else page_link(host or _reachable(service.host), service.port, token))


def page_link(host: str, port: int, token: str) -> str:
    """The address with the token behind a #: that part is for the browser alone, and in no server's log."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/#token={token}"


def _reachable(host: str) -> str:
    """A name for browsers: an address that stands for all of a machine's is none."""
    try:
        every = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        every = False
    return socket.getfqdn() if every else host
