"""``beamsieve cluster tomograms``: makes the clusters of a mined session anew, and marks groups of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .bars import bars
from .mistakes import user_mistakes
from .run import start_logging, write_json
from .sending import stopping

if TYPE_CHECKING:
    from ...models.tomograms.book import Clusters
    from ...models.tomograms.groups import Groups
    from .cluster_run import Made

STOPPED = 143
"""Exit code after a signal, as shells give it for SIGTERM."""
SHOWN = 12


def cluster_tomograms(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="folder of a session: files.directory of the daemon, --out of mine")
    ],
    *,
    k: Annotated[int, typer.Option("--k", min=1, max=2000, help="clusters; fewer where there are few codes")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="of everything random")] = 1,
    restarts: Annotated[int, typer.Option(min=1, max=100, help="of k-means; the best is taken")] = 4,
    network: Annotated[
        str | None, typer.Option(help="where several encoded: only tomograms of this one, by name or SHA-256")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="the .pt file of the network, where it is not found")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="of the network; default: one per core")] = None,
    mark: Annotated[
        list[str] | None, typer.Option(help='a group and its clusters, as "membrane=3,7,12-15"; repeatable')
    ] = None,
    kind: Annotated[str | None, typer.Option(help="of the groups in --mark: surface, globule or other")] = None,
    unmark: Annotated[
        list[str] | None, typer.Option(help='clusters of no group any more, as "3,5"; repeatable')
    ] = None,
    average: Annotated[
        str | None, typer.Option(help="a group: write the average of its sub-volumes as MRC, and say how wide it is")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="show all clusters there are; change nothing")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write what is shown to this file, too")] = None,
) -> None:
    """Put all sub-volumes of a session into clusters anew, or mark clusters as groups such as membrane.

    Clusters keep their numbers and marks where they continue earlier ones. Written are clusters.h5, groups.yaml, which
    people edit as well, the contact sheet clusters.png, and clusters and classes in all that was written of the
    tomograms. With --mark, --unmark, --average or --list no clusters are made. While a daemon runs on this folder it
    makes them itself, and takes marks within seconds.

    Exit code 0: done. 1: a file is damaged, or cannot be written. 2: a wrong option, or nothing to make clusters of.
    143: stopped by a signal, before anything was written.
    """
    start_logging(False)
    with stopping() as stop, user_mistakes():
        if not directory.is_dir():
            raise ValueError(f"{directory}: no such folder; name the folder of a session")
        from . import cluster_run as work

        with bars() as shown:
            if average is not None:
                _alone(average, list_, mark or (), unmark or ())
                made = work.there(directory)
            elif list_ or mark or unmark:
                _not_both(list_, mark or (), unmark or ())
                made = (
                    work.marked(directory, mark or (), unmark or (), kind, shown)
                    if not list_
                    else work.there(directory)
                )
            else:
                if kind is not None:
                    raise ValueError("--kind: says what a group of --mark is; add --mark, such as --mark membrane=3,7")
                options = work.Options(k, seed, restarts, network, bundle, device, threads)
                found = work.clustered(directory, options, stop.is_set, shown)
                if found is None:
                    typer.echo("stopped; nothing was written", err=True)
                    raise typer.Exit(STOPPED)
                made = found
    if average is not None:
        with user_mistakes():
            typer.echo(_averaged(made, average))
    else:
        _show(made, list_)
    if json_file is not None:
        write_json(json_file, report(made))


def _not_both(list_: bool, mark: Sequence[str], unmark: Sequence[str]) -> None:
    if list_ and (mark or unmark):
        raise ValueError("--list: changes nothing; leave it out, or --mark and --unmark")


def _alone(average: str, list_: bool, mark: Sequence[str], unmark: Sequence[str]) -> None:
    if list_ or mark or unmark:
        raise ValueError(f"--average {average}: changes nothing; leave out --list, --mark and --unmark")


def _averaged(made: Made, name: str) -> str:
    """Write the average of a group, and say how wide what stands in it is. Raises ``ValueError``, ``OSError``."""
    from ...models.tomograms.averaged import group_average
    from ..formats.mrc_write import MrcWriter

    group = next((group for group in made.groups.groups if group.name == name), None)
    if group is None:
        known = ", ".join(group.name for group in made.groups.groups) or "none"
        raise ValueError(f"--average {name}: no such group; there are: {known}")
    found = group_average(made.clusters, group.clusters)
    path = made.directory / "averages" / f"{group.file_name}.mrc"
    path.parent.mkdir(exist_ok=True)
    with MrcWriter(path, found.data.shape, 2, found.voxel_a) as writer:
        writer.write(found.data)
    return (
        f"{path}: {name}, {found.count} sub-volumes; at half height {found.width_nm():.1f} nm wide, "
        f"{found.height_nm():.1f} nm along z"
    )


def _show(made: Made, all_of_them: bool) -> None:
    """A row per cluster, group by group; what there is to say; and the whole."""
    from rich.console import Console
    from rich.table import Table

    for note in made.notes:
        typer.echo(note, err=True)
    rows = report(made)["clusters"]
    table = Table("cluster", "group", "sub-volumes", "share", "spread", box=None)
    for row in rows if all_of_them else rows[:SHOWN]:
        share = f"{100 * row['share']:.1f} %"
        table.add_row(str(row["id"]), row["group"] or "–", str(row["count"]), share, f"{row['spread']:.2f}")
    console = Console()
    (console if console.is_terminal else Console(width=100)).print(table)
    if len(rows) > SHOWN and not all_of_them:
        typer.echo(f"… and {len(rows) - SHOWN} more: --list, or {made.sheets[0] if made.sheets else 'clusters.png'}")
    for event in made.events:
        typer.echo(event.text)
    for line in _groups(made.groups, made.clusters):
        typer.echo(line)
    typer.echo(f"{made.summary}; {made.directory}")


def _groups(groups: Groups, clusters: Clusters) -> Sequence[str]:
    value = groups.values(clusters.ids)
    total = max(1, int(clusters.counts.sum()))
    found = []
    for at, group in enumerate(groups.groups, 1):
        count = int(clusters.counts[value == at].sum())
        numbers = ", ".join(map(str, group.clusters)) or "none"
        found.append(
            f"{group.name} ({group.kind}): clusters {numbers}; {count} sub-volumes ({100 * count / total:.1f} %)"
        )
    return found


def report(made: Made) -> dict[str, Any]:
    """What was made, as JSON has it: clusters group by group, the largest first."""
    from ...models.tomograms.sheet import order

    clusters, marks = made.clusters, made.groups.marks()
    total = max(1, int(clusters.counts.sum()))
    rows = [
        {
            "id": int(clusters.ids[row]),
            "group": marks.get(int(clusters.ids[row]), ""),
            "count": int(clusters.counts[row]),
            "share": int(clusters.counts[row]) / total,
            "spread": float(clusters.spread[row]),
            "averaged": int(clusters.averaged[row]),
        }
        for row in order(clusters, made.groups)
    ]
    groups = [
        {"name": g.name, "kind": g.kind, "clusters": list(g.clusters), "colour": g.colour} for g in made.groups.groups
    ]
    return {
        "directory": str(made.directory),
        "version": clusters.version,
        "network": clusters.name,
        "sha256": clusters.network,
        "posed": clusters.posed,
        "seed": clusters.seed,
        "inertia": clusters.inertia,
        "clusters": rows,
        "groups": groups,
        "events": [event.text for event in made.events],
        "notes": list(made.notes),
        "tomograms": made.tomograms,
        "files": [str(path) for path in made.files],
    }
