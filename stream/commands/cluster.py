"""``beamsieve cluster tomograms``: groups what a session has made, anew."""

from __future__ import annotations

import typer

from .cluster_tomograms import cluster_tomograms

app = typer.Typer(help="Make clusters of what a session has kept, and mark them.", no_args_is_help=True)
app.command("tomograms")(cluster_tomograms)


@app.callback()
def _group() -> None:
    """Make clusters of what a session has kept, and mark them."""
