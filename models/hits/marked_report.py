"""Whether a hit classifier that went on from marks is better than it was, and what is written if it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..bundle import Bundle, load_bundle, quiet_torchscript, save_bundle
from ..evaluate import auc, strictest_needed, wilson
from ..progress import Lines
from .evaluate import runner
from .infer import SINGLE
from .marked import Marked, MarkedOptions, check, rehearsal
from .recipes import Progress
from .report import FALSE_POSITIVE_LIMIT
from .simulator import CLASSES, Patterns, join
from .training_data import simulate_for
from .tuning import Tuning

FORGOTTEN = 0.02
"""So much of its accuracy on simulated patterns may a network lose."""
RULE = (
    "lowest threshold >= 0.5 whose false-positive rate for single hits is below 0.5 % at the upper end of its "
    "interval, or no more than that of the network it went on from, whichever is lower; on simulated patterns of the "
    "training conditions and the marks held back"
)
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Side:
    """How a network does on the marks held back (``loss``: balanced log loss), and on simulated patterns.

    ``recall``, ``false_positive``: of single hits at its ``threshold``, with 95 % intervals (value, low, high);
    ``accuracy``: the likeliest of five classes is right. NaN where there is nothing to divide by.
    """

    threshold: float
    loss: float
    auc: float
    recall: tuple[float, float, float]
    false_positive: tuple[float, float, float]
    accuracy: float
    simulated_recall: tuple[float, float, float]
    simulated_false_positive: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. ``path``: the bundle's ``.pt``, or None where none was written. ``why``: one line."""

    path: Path | None
    better: bool
    why: str
    before: Side
    after: Side

    def table(self) -> list[tuple[str, str, str]]:
        """Rows of (what, before, after), for people."""
        rows = {
            "marks held back: log loss": "loss",
            "marks held back: area under the ROC curve": "auc",
            "marks held back: recall at the threshold": "recall",
            "marks held back: false positives": "false_positive",
            "simulated: five classes right": "accuracy",
            "simulated: recall at the threshold": "simulated_recall",
            "simulated: false positives": "simulated_false_positive",
            "threshold": "threshold",
        }
        return [(what, _shown(getattr(self.before, n)), _shown(getattr(self.after, n))) for what, n in rows.items()]


def _shown(value: float | tuple[float, float, float]) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"
    return f"{value:.3f}"


def train_marked(options: MarkedOptions, marked: Marked, progress: Progress | None = None) -> Outcome:
    """Go on from ``options.start`` with the marks, and write the bundle into ``options.out`` if it became better.

    Better: the balanced log loss of the marks held back fell by more than its standard error, and at most 2 % of the
    accuracy on simulated patterns is lost. With ``options.anyway`` it is written whatever it became. Raises
    ``ValueError`` for marks and options that cannot be, ``BundleError`` for a bundle that cannot be read, ``OSError``
    where ``out`` cannot be written.
    """
    progress = progress or Lines()
    check(marked)
    bundle = load_bundle(options.start).expect(task="hits", shape=marked.images.shape[1:], classes=CLASSES)
    options.out.mkdir(parents=True, exist_ok=True)
    how = rehearsal(bundle, options)
    shown = join(simulate_for(how, "train", options.patterns, progress))
    tuning = Tuning(options, bundle, marked, shown, progress)
    while len(tuning.history) <= options.epochs:
        row = tuning.finish_epoch()
        told = f"train: loss {row['loss']:.4f}, marks {row['marks_loss']:.4f}, moved {row['simulated_moved']:.4f}"
        progress(told, len(tuning.history) - 1, options.epochs)
    tuning.write_log(options.out / "log.json")
    return _finish(tuning, bundle, join(simulate_for(how, "threshold", options.calibration, progress)))


def _finish(tuning: Tuning, bundle: Bundle, held: Patterns) -> Outcome:
    o, classifier = tuning.options, tuning.classifier()
    run_old, run_new = (runner(module, tuning.device) for module in (bundle.module, classifier))
    images: list[npt.NDArray[Any]] = [tuning.held.images, held.images]
    old, new = ((run(images[0]), run(images[1])) for run in (run_old, run_new))
    other = np.concatenate([~tuning.held.single, held.labels != SINGLE])
    was, now = (np.concatenate([part[:, SINGLE] for part in both]) for both in (old, new))
    threshold = chosen(was, now, other, bundle)
    before = _side(old, tuning.held.single, held, bundle.card.threshold)
    after = _side(new, tuning.held.single, held, threshold)
    better, why = judged(losses(old[0], tuning.held.single), losses(new[0], tuning.held.single), tuning, before, after)
    path = None
    if better or o.anyway:
        with quiet_torchscript():
            module = torch.jit.script(classifier.cpu())
        card = _card(tuning, bundle, before, after)
        path = save_bundle(o.out, o.name or f"{bundle.card.name}-marked", module, card)
        (o.out / "scores.json").write_text(json.dumps(card["scores"], indent=1))
    return Outcome(path, better, why, before, after)


def chosen(old: Scores, new: Scores, other: npt.NDArray[np.bool_], bundle: Bundle) -> float:
    """The new network's threshold, by ``RULE``.

    ``old``, ``new``: probabilities (n,) of a single hit; ``other`` bool (n,): which are none.
    """
    rule = strictest_needed(new, ~other, FALSE_POSITIVE_LIMIT)
    allowed = int((old[other] >= bundle.card.threshold).sum())
    highest = np.sort(new[other])[::-1]
    # Just above the score of the first one too many.
    same = max(0.5, float(np.nextafter(highest[allowed], np.float32(2)))) if allowed < len(highest) else 0.5
    return min(rule, same, 1.0)


def losses(probabilities: npt.NDArray[np.float32], single: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Log loss of each frame, (n,), of probabilities (n, 5); one that is sure and wrong costs 16."""
    p = np.clip(probabilities[:, SINGLE].astype(np.float64), 1e-7, 1 - 1e-7)
    found: npt.NDArray[np.float64] = -np.log(np.where(single, p, 1 - p))
    return found


def judged(
    old: npt.NDArray[np.float64], new: npt.NDArray[np.float64], tuning: Tuning, before: Side, after: Side
) -> tuple[bool, str]:
    """Whether the new network is better, and why: by the losses of the marks held back, and by what it forgot."""
    single, gain = tuning.held.single, old - new
    halves = (gain[single], gain[~single])
    mean = sum(half.mean() for half in halves) / 2
    error = float(np.sqrt(sum(half.var(ddof=1) / len(half) for half in halves))) / 2
    by = f"log loss of the {len(gain)} marks held back {before.loss:.3f} before, {after.loss:.3f} after"
    if before.accuracy - after.accuracy > FORGOTTEN:
        lost = f"simulated patterns told right: {before.accuracy:.3f} before, {after.accuracy:.3f} after"
        return False, f"it forgot what it was trained on ({lost}); lower --rate or --epochs, or review more frames"
    if not mean > error:
        return False, f"it is not better ({by}, within {error:.3f} of each other); review more frames"
    return True, f"it is better: {by}"


def _side(
    found: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    single: npt.NDArray[np.bool_],
    held: Patterns,
    threshold: float,
) -> Side:
    marks, simulated = found
    p, of_simulated = marks[:, SINGLE], simulated[:, SINGLE] >= threshold
    true = held.labels == SINGLE
    loss = losses(marks, single)
    return Side(
        threshold,
        float((loss[single].mean() + loss[~single].mean()) / 2),
        auc(p, single),
        _share(p[single] >= threshold),
        _share(p[~single] >= threshold),
        float((simulated.argmax(1) == held.labels).mean()),
        _share(of_simulated[true]),
        _share(of_simulated[~true]),
    )


def _share(flags: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    k, n = int(flags.sum()), len(flags)
    return (k / n if n else float("nan"), *wilson(k, n))


def _card(tuning: Tuning, bundle: Bundle, before: Side, after: Side) -> dict[str, Any]:
    o, old = tuning.options, bundle.card.to_json()
    both = {"before": asdict(before), "after": asdict(after)}
    marks = {part: _counted(of) for part, of in (("train", tuning.marks), ("held_back", tuning.held))}
    told = {
        "from": {"name": bundle.card.name, "sha256": bundle.card.sha256},
        "options": o.identity(),
        "marks": marks,
        "split": "by run, or by stretch of time within a run: neighbours are in one part",
        "best_epoch": tuning.best_epoch,
        "rehearsed": tuning.rehearsed,
    }
    return {
        **{name: old[name] for name in ("version", "task", "input", "output", "licence", "tolerance")},
        "threshold": after.threshold,
        "training": {**old["training"], "marked": [*old["training"].get("marked", []), told]},
        "scores": {
            "operating_point": {"rule": RULE, "threshold": after.threshold},
            "marked": both,
            "note": "the epoch was chosen on the marks held back too, which flatters the new network a little",
            "intervals": "95 %, Wilson",
        },
        "trained_by": o.command or f"beamsieve train hits --from {bundle.card.name} --add marks.jsonl --seed {o.seed}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _counted(marked: Marked) -> dict[str, Any]:
    runs = {run: marked.runs.count(run) for run in dict.fromkeys(marked.runs)}
    single = int(marked.single.sum())
    return {"single": single, "other": len(marked) - single, "runs": dict(list(runs.items())[:50])}
