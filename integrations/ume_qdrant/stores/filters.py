"""Filters on points, independent of the engine."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ume_retrieval.errors import InputError

Kind: TypeAlias = Literal["image", "video", "page", "text"]
"""Kind of a point's media."""

ReasoningState: TypeAlias = Literal["done", "later", "never", "failed"]
"""Whether a point has a `reasoned` vector, is queued for it, is excluded from it, or failed to get it."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on points; all given conditions must hold.

    None does not restrict. An empty tuple matches nothing, so that an empty list never selects everything.

    Attributes:
        kinds: Kinds of media.
        sources: Exact source names.
        doc_ids: Exact names of documents, as other integrations write them; `index` writes the source.
        under: Files or folders; matches sources that are one of them or lie below one, by whole path components:
            "photos/a" does not match "photos/ab.jpg". A search takes a relative path both as it is, for collections
            with relative names, and from the working directory.
        pages: Page numbers, 1-based; matches pages only.
        time: Interval in seconds (start, end); matches segments that overlap it, and nothing without times.
        reasoning: States of reasoning.
        digests: SHA-256 of files, hex.
        ids: Point ids.

    Raises:
        InputError: If `time` ends before it starts, or a condition has values that no point can have.

    Example:
        >>> Filter(kinds=("video",), time=(10.0, 20.0)).time
        (10.0, 20.0)
    """

    kinds: tuple[Kind, ...] | None = None
    sources: tuple[str | Path, ...] | None = None
    doc_ids: tuple[str, ...] | None = None
    under: tuple[str | Path, ...] | None = None
    pages: tuple[int, ...] | None = None
    time: tuple[float, float] | None = None
    reasoning: tuple[ReasoningState, ...] | None = None
    digests: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("kinds", "sources", "doc_ids", "under", "pages", "reasoning", "digests", "ids"):
            if isinstance(getattr(self, name), (str, int, Path)):
                raise InputError(f"a filter's {name} takes a tuple", hint=f"write {name}=(…,)")
        for name, known in (("kinds", get_args(Kind)), ("reasoning", get_args(ReasoningState))):
            if unknown := set(getattr(self, name) or ()) - set(known):
                raise InputError(
                    f"a filter's {name} cannot be {', '.join(map(repr, sorted(unknown, key=str)))}",
                    hint=f"use {', '.join(known)}",
                )
        if any(not isinstance(page, int) for page in self.pages or ()):
            raise InputError("a filter's pages are whole numbers", hint="write pages=(2, 3)")
        if self.time is not None and not self.time[0] < self.time[1]:
            raise InputError(f"a filter's time must end after it starts, got {self.time}")

    def from_here(self) -> Filter:
        """Return the filter with relative folders both unchanged and resolved from the working directory."""
        if self.under is None:
            return self
        return replace(self, under=tuple(dict.fromkeys(name for path in self.under for name in _typed(str(path)))))


def any_of(query: Filter) -> list[tuple[str, list[str] | list[int]]]:
    """Return the conditions on values of a payload field, as (field, accepted values).

    Example:
        >>> any_of(Filter(kinds=("image",), under=("/data/photos/",), pages=(2, 3)))
        [('kind', ['image']), ('within', ['/data/photos']), ('page', [2, 3])]
    """
    folders = None if query.under is None else [str(path).rstrip(os.sep) or str(path) for path in query.under]
    texts = {
        "kind": query.kinds,
        "source": query.sources,
        "doc_id": query.doc_ids,
        "within": folders,
        "reasoning": query.reasoning,
        "file_digest": query.digests,
    }
    conditions: list[tuple[str, list[str] | list[int]]] = []
    conditions += [(field, [str(value) for value in values]) for field, values in texts.items() if values is not None]
    if query.pages is not None:
        conditions.append(("page", list(query.pages)))
    return conditions


def ranges(query: Filter) -> list[tuple[str, dict[str, float]]]:
    """Return the conditions on numbers, as (field, limits by `lt` or `gt`).

    Example:
        >>> ranges(Filter(time=(10.0, 20.0)))
        [('start_s', {'lt': 20.0}), ('end_s', {'gt': 10.0})]
    """
    if query.time is None:
        return []
    start, end = query.time
    return [("start_s", {"lt": end}), ("end_s", {"gt": start})]


def _typed(path: str) -> tuple[str, ...]:
    if "://" in path:  # an address
        return (path,)
    return os.path.normpath(path), os.path.normpath(Path.cwd() / path)
