"""Data sets of simulated patterns on many cores, cached on disk, resumable block by block."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch

from .simulator import Patterns, Progress, Recipe, join, simulate_block

# Which of the wanted data sets, and which block of it.
Job = tuple[int, int]


def fingerprint(recipe: Recipe) -> str:
    """Sixteen hex digits of the SHA-256 of the recipe's options: same digits, same patterns."""
    return hashlib.sha256(json.dumps(recipe.options(), sort_keys=True).encode()).hexdigest()[:16]


def generate(
    n: int, recipe: Recipe, cache: Path | None = None, workers: int | None = None, progress: Progress | None = None
) -> Patterns:
    """The first n patterns of the recipe, as ``simulate`` makes them; see ``generate_all``."""
    return generate_all([(n, recipe)], cache, workers, progress)[0]


def generate_all(
    wanted: Sequence[tuple[int, Recipe]],
    cache: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Patterns]:
    """The first n patterns of each recipe, by ``workers`` processes (default: all cores) that are started once.

    With ``cache``, each block is kept as one ``.npz`` in a folder named by the recipe's fingerprint: an interrupted run
    goes on where it was, and a longer data set of the same recipe reuses the shorter one.
    """
    folders = [_folder(cache, recipe) for _, recipe in wanted]
    found: dict[Job, Patterns] = {}
    missing: list[Job] = []
    for which, (n, recipe) in enumerate(wanted):
        for block in range(-(-n // recipe.per_model)):
            kept = _load(folders[which], recipe, block)
            if kept is None:
                missing.append((which, block))
            else:
                found[which, block] = kept
    total = sum(n for n, _ in wanted)
    done = sum(len(p) for p in found.values())
    for (which, block), patterns in _made([r for _, r in wanted], missing, workers or _cores()):
        found[which, block] = patterns
        _save(folders[which], block, patterns)
        done += len(patterns)
        if progress is not None:
            progress(min(done, total), total)
    sets = []
    for which, (n, _) in enumerate(wanted):
        # Popped, so that a large data set is not held twice for longer than one join.
        parts = [found.pop(job) for job in sorted(job for job in found if job[0] == which)]
        sets.append(join(parts).part(slice(0, n)))
    return sets


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _one_thread() -> None:
    torch.set_num_threads(1)


def _made(recipes: list[Recipe], missing: list[Job], workers: int) -> Iterator[tuple[Job, Patterns]]:
    """The missing blocks, in the order in which they are ready."""
    workers = min(workers, len(missing))
    if workers <= 1:
        for which, block in missing:
            yield (which, block), simulate_block(recipes[which], block)
        return
    # Not fork: the parent's torch threads would not survive in the child.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        jobs = {pool.submit(simulate_block, recipes[job[0]], job[1]): job for job in missing}
        for ready in as_completed(list(jobs)):
            yield jobs.pop(ready), ready.result()


def _folder(cache: Path | None, recipe: Recipe) -> Path | None:
    if cache is None:
        return None
    folder = cache / fingerprint(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(recipe.options(), indent=1))
    return folder


def _load(folder: Path | None, recipe: Recipe, block: int) -> Patterns | None:
    path = None if folder is None else folder / f"block-{block:06d}.npz"
    if path is None or not path.exists():
        return None
    with np.load(path, allow_pickle=False) as kept:
        images, labels, photons = kept["images"], kept["labels"], kept["photons"]
        return Patterns(images, labels, kept["model_id"], kept["shape_id"], photons, kept["masks"], recipe.shapes)


def _save(folder: Path | None, block: int, p: Patterns) -> None:
    if folder is None:
        return
    path = folder / f"block-{block:06d}.npz"
    # Renamed when complete, so that a kill in the middle leaves no half block behind.
    partial = path.with_suffix(".inprogress")
    with partial.open("wb") as out:
        np.savez(
            out,
            images=p.images,
            labels=p.labels,
            model_id=p.model_id,
            shape_id=p.shape_id,
            photons=p.photons,
            masks=p.masks,
        )
    partial.replace(path)
