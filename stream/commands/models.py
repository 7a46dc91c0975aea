"""``beamsieve models list|show|verify``: which models there are, what their cards say, and whether they hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .run import write_json

if TYPE_CHECKING:
    from ...models.bundle import Bundle

app = typer.Typer(help="The models there are, what their cards say, and whether they hold.", no_args_is_help=True)

Directory = Annotated[Path | None, typer.Option("--models", help="look here first, then in BEAMSIEVE_MODELS")]
Json = Annotated[Path | None, typer.Option("--json", help="write the answer to this file")]
Name = Annotated[str, typer.Argument(help="name of a model, or the path of its .pt file")]
Names = Annotated[list[str] | None, typer.Argument(help="names or paths; default: all that are found")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Size = Annotated[int, typer.Option(min=1, max=4096, help="largest batch to run")]


@app.command("list")
def list_(directory: Directory = None, json_file: Json = None) -> None:
    """List the models that can be named, in the order in which they are looked for."""
    from ...models.bundle import BundleError, available, read_card, search_path

    rows: list[dict[str, Any]] = []
    for name, path in available(directory).items():
        try:
            card = read_card(path)
        except BundleError as error:
            rows.append({"name": name, "path": str(path), "error": error.detail})
        else:
            rows.append({**card.to_json(), "name": name, "path": str(path)})
    if json_file:
        write_json(json_file, rows)
    if not rows:
        places = ", ".join(map(str, search_path(directory)))
        typer.echo(f"no models in {places}; set BEAMSIEVE_MODELS to the folder of yours", err=True)
    _print_list(rows)


@app.command()
def show(name: Name, directory: Directory = None, json_file: Json = None) -> None:
    """Print the card of a model, after comparing its file with the card's SHA-256."""
    import yaml

    bundle = _load(name, directory)
    card = bundle.card.to_json()
    if json_file:
        write_json(json_file, {**card, "path": str(bundle.path)})
    typer.echo(f"# {bundle.path}")
    typer.echo(yaml.safe_dump(_plain(card), sort_keys=False, allow_unicode=True, width=110), nl=False)


@app.command()
def verify(
    names: Names = None, directory: Directory = None, device: Device = "auto", batch: Size = 16, json_file: Json = None
) -> None:
    """Load models, run them in every way and batch size, and compare the scores with float32 on the CPU.

    Exit code 0: all hold. 2: one does not; the others were verified.
    """
    from ...models.bundle import BundleError, available, load_bundle
    from ...models.runner import Runner

    found: dict[str, Any] = {}
    failed = False
    for name in names or sorted(available(directory)):
        try:
            bundle = load_bundle(name, directory)
            report = Runner(bundle, batch=batch, device=device).warm_up()
        except BundleError as error:
            failed = True
            found[name] = {"ok": False, "reason": error.reason, "error": error.detail}
            typer.echo(f"{name}: FAILED: {error.detail}", err=True)
        else:
            found[name] = {"ok": True, "sha256": bundle.card.sha256, "runner": report.to_json()}
            typer.echo(f"{name}: holds: SHA-256 {bundle.card.sha256[:12]}…, {report}")
            for trial in report.trials:
                fault = trial.fault or f"{trial.ms_per_frame:.3f} ms per frame, differs by {trial.difference:.1e}"
                typer.echo(f"  {trial.plan}: {fault}")
    if json_file:
        write_json(json_file, found)
    if failed or not found:
        raise typer.Exit(2)


def _load(name: str, directory: Path | None) -> Bundle:
    from ...models.bundle import BundleError, load_bundle

    try:
        return load_bundle(name, directory)
    except BundleError as error:
        typer.echo(error.detail, err=True)
        raise typer.Exit(2) from None


def _print_list(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "version", "task", "input", "threshold", "sha256", box=None)
    table.columns[0].no_wrap = True
    table.add_column("file", overflow="fold")
    for row in rows:
        if "error" in row:
            table.add_row(row["name"], "unusable: " + row["error"].splitlines()[0])
            continue
        shape = "×".join(map(str, row["input"]["shape"]))
        what = (f"{shape} {row['input']['dtype']}", f"{row['threshold']:g}", row["sha256"][:12])
        table.add_row(row["name"], row["version"], row["task"], *what, row["path"])
    if rows:
        # In a pipe a row is one line, however long its path.
        console = Console()
        (console if console.is_terminal else Console(width=10_000)).print(table)


def _plain(value: Any) -> Any:
    """The same without tuples, which YAML would mark."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
