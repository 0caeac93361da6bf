"""Content of a report as frozen values: search results with their evidence, independent of any vector database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import PIL.Image

from ume_retrieval.inputs import Frames
from ume_retrieval.report.sanitize import clock
from ume_retrieval.tcot.trace import TCot

Kind: TypeAlias = Literal["image", "video", "page", "text"]
"""Kind of a hit: an image, a video segment, a page of a document, or a text."""


@dataclass(frozen=True, slots=True)
class ReportHit:
    """One result of a query.

    Only `title`, `kind` and `score` are required; a hit whose file is gone still gets a card.

    Attributes:
        title: Name to show, such as a path.
        kind: Kind of the item.
        score: The store's score; higher is better. Any scale: bars are relative to the query's best hit.
        text: The item's text.
        images: The item's images, as the Reasoner saw them.
        videos: Sampled frames; key frames of the trace refer to the first video.
        trace: The Reasoner's trace over the item, or None where it was indexed without reasoning.
        start_s: Start of a video segment in seconds, or None.
        end_s: End of a video segment in seconds, or None.
        duration_s: Length of the whole file in seconds, for the timeline; None draws the timeline up to `end_s`.
        page: Page number, 1-based, or None.
        relevant: Whether the hit answers the query; None when unknown.

    Example:
        >>> ReportHit("holiday/film.mp4", "video", 0.81, start_s=4.0, end_s=8.0).place
        '0:04.0 to 0:08.0'
    """

    title: str
    kind: Kind
    score: float
    text: str | None = None
    images: tuple[PIL.Image.Image, ...] = ()
    videos: tuple[Frames, ...] = ()
    trace: TCot | None = None
    start_s: float | None = None
    end_s: float | None = None
    duration_s: float | None = None
    page: int | None = None
    relevant: bool | None = None

    @property
    def place(self) -> str:
        """Position in the file: a page, a time span, or an empty string."""
        if self.page is not None:
            return f"page {self.page}"
        if self.start_s is None:
            return ""
        return clock(self.start_s) if self.end_s is None else f"{clock(self.start_s)} to {clock(self.end_s)}"


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """One query with its hits.

    Attributes:
        text: The query's text, or None.
        hits: Results, best first; may be empty.
        images: The query's images.
        videos: The query's videos as sampled frames.
        trace: The Reasoner's trace over the query, or None.
        task: Kind of query, one or two words; empty when all queries are of one kind.
        note: One line under the query ("without reasoning the right page came 4th"); may be empty.

    Example:
        >>> query = ReportQuery("a beach", (ReportHit("a.jpg", "image", 0.8, relevant=True),))
        >>> query.found_first
        True
    """

    text: str | None
    hits: tuple[ReportHit, ...] = ()
    images: tuple[PIL.Image.Image, ...] = ()
    videos: tuple[Frames, ...] = ()
    trace: TCot | None = None
    task: str = ""
    note: str = ""

    @property
    def found_first(self) -> bool | None:
        """Whether the first hit is relevant; None when unknown, False without hits."""
        return self.hits[0].relevant if self.hits else False


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A small table of figures.

    Attributes:
        header: Names of the columns.
        rows: Cells as text, one tuple per row, as long as the header.
        caption: One line; may be empty.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A whole report.

    Attributes:
        title: Heading of the page.
        queries: Queries in reading order.
        facts: Headline figures as (name, value), such as ("hit@1", "0.91").
        table: A table under the headline, or None.
        notes: Paragraphs for the reader, such as which models were used.

    Example:
        >>> ReportPage("Holiday photos", facts=(("indexed", "240 images"),)).queries
        ()
    """

    title: str
    queries: tuple[ReportQuery, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    table: ReportTable | None = None
    notes: tuple[str, ...] = ()
