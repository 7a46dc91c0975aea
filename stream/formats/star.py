"""STAR files as cryo-EM programs write them: named blocks, each a loop with columns or a list of single values.

Values are read as text, so that a name such as ``01`` stays one. Layout as in RELION's ``metadata_table.cpp``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..flow.frame import BadData
from .centres import REASON, read_text

VERSION = "# version 30001"
_TOKEN = re.compile(r"""'([^']*)'(?=\s|$)|"([^"]*)"(?=\s|$)|(\S+)""")

_PLAIN = re.compile(r"[^\s#_'\";$\[\]]\S*")
_RESERVED = re.compile(r"(data_|loop_|save_|stop_|global_)", re.IGNORECASE)


@dataclass(slots=True)
class Block:
    """One ``data_`` block. ``columns``: names without ``#1``. ``rows``: texts. ``lines``: where each stands (1-based).

    A block of single values has one row.
    """

    name: str
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def index(self, *names: str) -> int | None:
        """The first of these columns that the block has."""
        return next((self.columns.index(name) for name in names if name in self.columns), None)


def read_star(path: Path) -> dict[str, Block]:
    """All blocks by name (``""`` for ``data_``). Raises ``OSError``, and ``BadData`` naming the line."""
    return parse(read_text(path).splitlines(), path)


def parse(lines: Iterable[str], path: Path) -> dict[str, Block]:
    """All blocks of a file's lines. ``path`` is for messages. Raises ``BadData``."""
    blocks: dict[str, Block] = {}
    block: Block | None = None
    loop = False
    for at, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text[0] == "#":
            continue
        if text.startswith("data_"):
            block, loop = Block(text.split()[0][len("data_") :]), False
            if block.name in blocks:
                raise BadData(REASON, f"{path}:{at}: a second block data_{block.name}; keep one")
            blocks[block.name] = block
        elif block is None:
            raise BadData(REASON, f"{path}:{at}: no data_ block before {text[:40]!r}; this is no STAR file")
        elif text == "loop_":
            loop = True
        else:
            _add(block, loop, text, path, at)
    if not blocks:
        raise BadData(REASON, f"{path}: holds no data_ block; it is empty, or no STAR file")
    return blocks


def _add(block: Block, loop: bool, text: str, path: Path, at: int) -> None:
    if text[0] == "_" and not (loop and block.rows):
        words = list(_tokens(text))
        block.columns.append(words[0][1:])
        if not loop:
            if len(words) < 2:
                raise BadData(REASON, f"{path}:{at}: {words[0]}: has no value")
            if not block.rows:
                block.rows.append([])
                block.lines.append(at)
            block.rows[0].append(words[1])
        return
    words = text.split() if "'" not in text and '"' not in text else list(_tokens(text))
    if len(words) != len(block.columns):
        raise BadData(
            REASON,
            f"{path}:{at}: {len(words)} values for {len(block.columns)} columns of data_{block.name}; is it cut?",
        )
    block.rows.append(words)
    block.lines.append(at)


def _tokens(text: str) -> Iterator[str]:
    for single, double, bare in _TOKEN.findall(text):
        yield bare or single or double


def quote(text: str) -> str:
    """A value that reads back as it is: in quotes where it has blanks, is empty, or would mean something else.

    A line break cannot be written, and becomes ``_``.
    """
    text = re.sub(r"[\r\n]", "_", text)
    if _PLAIN.fullmatch(text) and not _RESERVED.match(text):
        return text
    return f'"{text}"' if '"' not in text else f"'{text}'"


def loop(name: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, version: bool = True) -> str:
    """A block with a loop. ``columns`` without underscore; ``rows``: ready texts (see ``quote``)."""
    head = f"\n{VERSION}\n" if version else ""
    names = "".join(f"_{column} #{at} \n" for at, column in enumerate(columns, 1))
    body = "".join(" ".join(row) + " \n" for row in rows)
    return f"{head}\ndata_{name}\n\nloop_ \n{names}{body} \n"


def pairs(name: str, values: Sequence[tuple[str, str]]) -> str:
    """A block of single values."""
    return f"\ndata_{name}\n\n" + "".join(f"_{key}  {value}\n" for key, value in values) + "\n"
