"""The command line: ``beamsieve run|check|page|deploy|demo|emulate|record|pick|train|finetune|evaluate|models …``."""

from __future__ import annotations

import sys

import typer

from .. import __version__
from .commands.classify import classify
from .commands.classify2d import classify2d
from .commands.cluster import app as cluster
from .commands.demo import demo
from .commands.deploy import deploy
from .commands.emulate import app as emulate
from .commands.evaluate import app as evaluate
from .commands.finetune import app as finetune
from .commands.inspect import inspect
from .commands.journal import retry, status
from .commands.marks import marks
from .commands.mine import mine
from .commands.models import app as models
from .commands.page import page
from .commands.pick import pick
from .commands.record import record, replay
from .commands.recover import recover
from .commands.rethreshold import rethreshold
from .commands.run import check, run, schema
from .commands.segment import segment
from .commands.train import app as train

app = typer.Typer(
    name="beamsieve",
    help="Sieves what a beam brings, while it runs: hit rates and particle yields now, what is worth keeping to HDF5.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run)
app.command()(check)
app.command()(schema)
app.command()(page)
app.command()(marks)
app.command()(deploy)
app.command()(demo)
app.add_typer(emulate, name="emulate")
app.command()(record)
app.command()(replay)
app.command()(classify)
app.command()(classify2d)
app.command()(pick)
app.command()(mine)
app.command()(rethreshold)
app.command()(status)
app.command()(retry)
app.command()(mine)
app.add_typer(cluster, name="cluster")
app.command()(segment)
app.add_typer(train, name="train")
app.add_typer(finetune, name="finetune")
app.add_typer(evaluate, name="evaluate")
app.add_typer(models, name="models")
app.command()(inspect)
app.command()(recover)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"beamsieve {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Say the version."),
) -> None:
    """Sieves what a beam brings, while it runs."""


def main() -> None:
    """Entry point of the ``beamsieve`` command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
