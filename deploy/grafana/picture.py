"""Pictures of the dashboards for the docs, drawn by matplotlib from what the dashboards' queries answer.

``python -m beamsieve.deploy.grafana.picture http://localhost:9090 docs/pictures``. They are no screenshots of Grafana:
places, titles, curves, numbers, colours and units are the dashboards', the drawing is not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from .__main__ import FOLDER
from .asking import Server, filled, questions, values_for
from .canvas import INK, PAPER, SURFACE, Sheet
from .drawing import DRAWN

WIDTH_INCH, UNIT_INCH, DPI = 16.0, 0.30, 100
POINTS = 150
HIGHEST = 12
"""A text is shown this high at most: its beginning."""


def sheet_of(server: Server, dashboard: dict[str, Any], end: float, seconds: float, daemon: str) -> Sheet:
    """What panels need to be drawn: the times, the variables' values, and what happened."""
    times = list(np.linspace(end - seconds, end, POINTS))
    if not daemon:
        (asked,) = (one for one in questions(dashboard) if one.what == "variable" and one.title == "daemon")
        found = [labels["instance"] for labels, up in server.now(filled(asked.expr, values_for()), end) if up]
        daemon = ".*" if dashboard["uid"] == "beamsieve-fleet" else sorted(found)[0]
    values = values_for(daemon) | {"__range": f"{round(seconds)}s"}
    events = {one["name"]: one["iconColor"] for one in dashboard["annotations"]["list"] if one["enable"]}
    marks = []
    for one in questions(dashboard):
        if one.what == "annotation" and one.title in events:
            for curve in server.over(filled(one.expr, values), times):
                shown = np.nan_to_num(np.array(curve.values)) > 0
                starts = np.flatnonzero(shown & ~np.r_[False, shown[:-1]])
                marks += [(times[start], events[one.title]) for start in starts]
    return Sheet(server, times, values, marks)


def draw(server: Server, dashboard: dict[str, Any], out: Path, *, end: float, seconds: float, daemon: str = "") -> None:
    """Write the picture of a dashboard (its JSON) to ``out``, a PNG with a palette."""
    shown = [panel | {"gridPos": dict(panel["gridPos"])} for panel in dashboard["panels"]]
    for panel in shown:
        if panel["type"] == "text":
            panel["gridPos"]["h"] = HIGHEST
    units = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in shown) + 2
    sheet = sheet_of(server, dashboard, end, seconds, daemon)
    with plt.rc_context({"font.size": 8, "text.color": INK, "axes.labelcolor": INK, "axes.facecolor": SURFACE}):
        figure = plt.figure(figsize=(WIDTH_INCH, units * UNIT_INCH), dpi=DPI, facecolor=PAPER)
        heading = f"{dashboard['title']}   ·   drawn from the dashboard's queries, not a screenshot of Grafana"
        figure.text(0.01, 1 - 1.0 / units, heading, fontsize=12, va="center")
        for panel in shown:
            where = panel["gridPos"]
            box = (where["x"] / 24, 1 - (where["y"] + where["h"] + 2) / units, where["w"] / 24, where["h"] / units)
            DRAWN[panel["type"]](figure, box, panel, sheet)
        figure.savefig(out, dpi=DPI, facecolor=PAPER)
        plt.close(figure)
    Image.open(out).convert("RGB").quantize(255, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        out, optimize=True
    )


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m beamsieve.deploy.grafana.picture", description=__doc__)
    parser.add_argument("prometheus", help="its address")
    parser.add_argument("out", type=Path, help="the folder for dashboard-NAME.png")
    parser.add_argument("--minutes", type=float, default=8.0, help="how far back (8)")
    parser.add_argument("--end", type=float, default=0.0, help="until when, in Unix seconds (now)")
    parser.add_argument(
        "--daemon", default="", help="HOST:PORT for the dashboards of one daemon (the first that is up)"
    )
    parser.add_argument(
        "--only", default="", help="one dashboard: xfel-run, cryoem-session, cryoet-session, fleet or daemon"
    )
    asked = parser.parse_args(arguments)
    for path in sorted(FOLDER.glob(f"{asked.only or '*'}.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        one = {"end": asked.end or time.time() - 5, "seconds": 60 * asked.minutes, "daemon": asked.daemon}
        draw(Server(asked.prometheus), dashboard, asked.out / f"dashboard-{path.stem}.png", **one)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
