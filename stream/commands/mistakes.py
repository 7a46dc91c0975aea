"""What a command says of mistakes: one line and an exit code, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ..errors import plain
from ..flow.frame import BadData


@contextmanager
def user_mistakes() -> Iterator[None]:
    """One line and exit code 2 for what the user can mend in the options (models too), 1 for files."""
    from ...models.bundle import BundleError

    try:
        yield
    except (BundleError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except (BadData, OSError) as error:
        typer.echo(plain(error), err=True)
        raise typer.Exit(1) from None
