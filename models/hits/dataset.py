"""Data sets of simulated patterns on many cores, cached on disk, resumable block by block."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch

from .simulator import Patterns, Progress, Recipe, join, simulate_block


def fingerprint(recipe: Recipe) -> str:
    """Sixteen hex digits of the SHA-256 of the recipe's options: same digits, same patterns."""
    return hashlib.sha256(json.dumps(recipe.options(), sort_keys=True).encode()).hexdigest()[:16]


def generate(
    n: int, recipe: Recipe, cache: Path | None = None, workers: int | None = None, progress: Progress | None = None
) -> Patterns:
    """The first n patterns of the recipe, as ``simulate`` makes them, on ``workers`` processes (default: all cores).

    With ``cache``, each block is kept as one ``.npy``-based archive in a folder named by the recipe's fingerprint: an
    interrupted run goes on where it was, and a longer data set of the same recipe reuses the shorter one.
    """
    blocks = -(-n // recipe.per_model)
    folder = None
    if cache is not None:
        folder = cache / fingerprint(recipe)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(json.dumps(recipe.options(), indent=1))
    parts: list[Patterns | None] = [None] * blocks
    missing = []
    for block in range(blocks):
        parts[block] = _load(folder, recipe, block)
        if parts[block] is None:
            missing.append(block)
    done = blocks - len(missing)
    for block, patterns in _made(recipe, missing, workers or _cores()):
        parts[block] = patterns
        _save(folder, block, patterns)
        done += 1
        if progress is not None:
            progress(min(n, done * recipe.per_model), n)
    return join([p for p in parts if p is not None]).part(slice(0, n))


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _one_thread() -> None:
    torch.set_num_threads(1)


def _made(recipe: Recipe, missing: list[int], workers: int) -> Iterator[tuple[int, Patterns]]:
    """The missing blocks, in the order in which they are ready."""
    workers = min(workers, len(missing))
    if workers <= 1:
        for block in missing:
            yield block, simulate_block(recipe, block)
        return
    # Not fork: the parent's torch threads would not survive in the child.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        jobs = {pool.submit(simulate_block, recipe, block): block for block in missing}
        for job in as_completed(jobs):
            yield jobs.pop(job), job.result()


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
