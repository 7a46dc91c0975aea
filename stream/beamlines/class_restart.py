"""What a daemon goes on from when the one before it has classified particles in the same folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ..live.class_view import MOST_EVENTS
from ..sinks.picks.classes_file import ClassTables
from .class_book import Book
from .class_networks import Networks
from .class_settings import ClassSettings
from .class_store import Kept, book_of

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Restart:
    """``book``: in force, None where there is none yet. ``kept``: what belongs to it.

    ``mixed``: some labels are of another network than the one that goes on: the daemon before was killed in a pass, or
    set to another network since. ``anew``: what was stored cannot be used.
    """

    book: Book | None
    kept: Kept
    mixed: bool = False
    anew: bool = False


def restart(tables: ClassTables, networks: Networks, settings: ClassSettings, folder: Path, now: float) -> Restart:
    """Go on from ``tables``, with the network that was used last. ``folder``: of the records; ``now``: Unix seconds."""
    kept = Kept(events=list(tables.events)[-MOST_EVENTS:])
    try:
        said = networks.restore(tables)
        kept.clustered_at, kept.groupings = int(tables.facts["clustered_at"]), int(tables.facts["groupings"])
        book = None
        if float(tables.facts["box_a"]) > 0:
            options = {"most": settings.number, "per_class": settings.per_class}
            book = book_of(tables, folder, networks.current.denoiser, **options)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        log.warning("classes.h5: cannot be gone on with (%s); all particles are classified anew", error)
        return Restart(None, Kept(events=kept.events), anew=True)
    kept.events = [*kept.events, *((now, text) for text in said)][-MOST_EVENTS:]
    if book is None:
        return Restart(None, kept)
    book.model = networks.number_of(networks.current)
    mixed = any((entry.rows["model"] != book.model).any() for entry in book.entries.values())
    log.info("2-D classes: %d particles in %d classes", book.classified, len(book.classes.ids))
    return Restart(book, kept, mixed=mixed)
