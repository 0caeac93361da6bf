"""`ume search` and `ume report`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, cast

import typer
from rich.table import Table

from ume_cli.options import (
    DEFAULT_COLLECTION,
    DEFAULT_MODEL,
    DEFAULT_STORE,
    CollectionOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelOption,
    ReasonerOption,
    StoreOption,
    load_embedder,
    open_named_store,
)
from ume_cli.output import command, plain
from ume_retrieval.inputs import Item

if TYPE_CHECKING:
    from ume_qdrant import Filter, Hit, SearchResult
    from ume_qdrant import Kind as KindName
    from ume_qdrant.searching.params import QueryReasoning
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder


ANSWER_LETTERS = 200
"""So much of an answer, or of a text, stands in the table; --json and reports have all of it."""


class Kind(StrEnum):
    """What may be found."""

    IMAGE = "image"
    VIDEO = "video"
    PAGE = "page"
    TEXT = "text"


SearchMode: TypeAlias = Literal["fused", "direct", "reasoned"]
"""Which vectors are compared."""

Group: TypeAlias = Literal["point", "moment", "source"]
"""What a hit stands for."""

TextArgument = Annotated[str | None, typer.Argument(help="What to look for, in words.", show_default=False)]
ImageOption = Annotated[list[Path] | None, typer.Option("--image", help="A picture to search with.")]
VideoOption = Annotated[list[Path] | None, typer.Option("--video", help="A video to search with.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="Most hits.")]
ModeOption = Annotated[SearchMode, typer.Option("--mode", help="Which vectors are compared.")]
KindOption = Annotated[list[Kind] | None, typer.Option("--kind", help="Only hits of this kind; may be repeated.")]
UnderOption = Annotated[list[Path] | None, typer.Option("--under", help="Only this file or folder; may be repeated.")]
PageOption = Annotated[list[int] | None, typer.Option("--page", min=1, help="Only this page; may be repeated.")]
FromOption = Annotated[float | None, typer.Option("--from", help="Only video after this second.")]
ToOption = Annotated[float | None, typer.Option("--to", help="Only video before this second.")]
GroupOption = Annotated[Group, typer.Option("--group-by", help="One hit a point, a moment or a source.")]
DiversityOption = Annotated[float, typer.Option("--diversity", min=0, max=1, help="Weight of unlikeness of hits.")]
GateOption = Annotated[
    Path | None,
    typer.Option("--gate", help="Reason over the query only where this gate finds that it pays.", show_default=False),
]
ExactOption = Annotated[bool, typer.Option("--exact", help="Compare with every full vector; slow, misses nothing.")]


def search(
    text: TextArgument = None,
    *,
    image: ImageOption = None,
    video: VideoOption = None,
    kind: KindOption = None,
    under: UnderOption = None,
    page: PageOption = None,
    start: FromOption = None,
    end: ToOption = None,
    group_by: GroupOption = "point",
    diversity: DiversityOption = 0.0,
    exact: ExactOption = False,
    gate: GateOption = None,
    limit: LimitOption = 10,
    mode: ModeOption = "fused",
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: ModelOption = DEFAULT_MODEL,
    reasoner: ReasonerOption = "auto",
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Search with words, pictures and videos, in any mix."""
    with command(as_json=as_json) as output:
        item = Item(text=text, images=tuple(image or ()), videos=tuple(video or ()))
        _, result = _find(
            item,
            Wanted(limit, mode, _where(kind, under, page, (start, end)), group_by, diversity, exact, gate),
            (store, collection),
            (model, reasoner, device, engine),
        )
        usage = result.usage
        spent = {
            "reasoned": usage.reasoner_calls + usage.cached_traces,
            "spared": usage.spared,
            "completion_tokens": usage.completion_tokens,
        }
        output.result({"hits": [hit.to_dict() for hit in result.hits], "usage": spent}, _table(result))


def report(
    text: TextArgument = None,
    *,
    image: ImageOption = None,
    video: VideoOption = None,
    out: Annotated[Path, typer.Option(help="The HTML page to write.")] = Path("report.html"),
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) too.")] = None,
    kind: KindOption = None,
    under: UnderOption = None,
    page: PageOption = None,
    start: FromOption = None,
    end: ToOption = None,
    group_by: GroupOption = "point",
    diversity: DiversityOption = 0.0,
    exact: ExactOption = False,
    gate: GateOption = None,
    limit: LimitOption = 10,
    mode: ModeOption = "fused",
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: ModelOption = DEFAULT_MODEL,
    reasoner: ReasonerOption = "auto",
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Search, and write the hits with their evidence drawn as one HTML page."""
    with command(as_json=as_json) as output:
        from ume_qdrant.searching.pictures import report_query
        from ume_retrieval.report import ReportPage, write_contact_sheet, write_html

        item = Item(text=text, images=tuple(image or ()), videos=tuple(video or ()))
        embedder, result = _find(
            item,
            Wanted(limit, mode, _where(kind, under, page, (start, end)), group_by, diversity, exact, gate),
            (store, collection),
            (model, reasoner, device, engine),
        )
        seen = (embedder.reasoner or embedder.embedder).spec.budget
        query = report_query(item, result.hits, result.query_trace, budget=seen)
        drawn = ReportPage(title=text or "Search report", queries=(query,))
        written = {"report": str(write_html(drawn, out))}
        if sheet:
            written["sheet"] = str(write_contact_sheet(drawn, sheet))
        output.result(
            {"hits": [hit.to_dict() for hit in result.hits], **written},
            *(f"wrote {plain(path)}" for path in written.values()),
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options say of the hits."""

    limit: int
    mode: SearchMode
    where: Filter | None
    group_by: Group
    diversity: float
    exact: bool
    gate: Path | None


def _where(
    kind: list[Kind] | None,
    under: list[Path] | None,
    page: list[int] | None,
    seconds: tuple[float | None, float | None],
) -> Filter | None:
    """The filter that the options make, or None where nothing was said."""
    from ume_qdrant import Filter
    from ume_qdrant.indexing.discover import roots_of
    from ume_retrieval.media import display_name

    if not (kind or under or page) and seconds == (None, None):
        return None
    start, end = seconds
    # Absolute, and as they are given: a collection names its files in the one way or in the other.
    names = dict.fromkeys(map(display_name, (*roots_of(under), *map(os.path.normpath, under)))) if under else None
    return Filter(
        kinds=cast("tuple[KindName, ...]", tuple(one.value for one in kind)) if kind else None,
        under=None if names is None else tuple(names),
        pages=tuple(page) if page else None,
        time=None if seconds == (None, None) else (start or 0.0, math.inf if end is None else end),
    )


def _find(
    item: Item, wanted: Wanted, place: tuple[str, str], models: tuple[str, str, str, str]
) -> tuple[ReasoningEmbedder, SearchResult]:
    from ume_qdrant import SearchEffort
    from ume_qdrant import search as search_store
    from ume_retrieval.gate import Gate

    gate = Gate.load(wanted.gate) if wanted.gate else None
    with open_named_store(*place) as opened:
        opened.count()  # a collection that is missing or held by another process shows before models are loaded
        embedder = load_embedder(*models)
        reasoning: QueryReasoning = "never" if embedder.reasoner is None else "auto" if gate else "always"
        return embedder, search_store(
            embedder,
            opened,
            item,
            limit=wanted.limit,
            mode=wanted.mode,
            reasoning=reasoning,
            gate=gate,
            target="video" if wanted.where is not None and wanted.where.kinds == ("video",) else None,
            where=wanted.where,
            group_by=wanted.group_by,
            diversity=wanted.diversity,
            effort=SearchEffort(exact=wanted.exact),
        )


def _table(result: SearchResult) -> Table:
    from ume_retrieval.report.wording import one_line

    table = Table(box=None, pad_edge=False)
    for name in ("score", "source", "where", "answer"):
        table.add_column(name, justify="right" if name == "score" else "left", overflow="fold")
    for hit in result.hits:
        words = one_line(hit.answer or hit.text or "")
        answer = words if len(words) <= ANSWER_LETTERS else f"{words[:ANSWER_LETTERS].rstrip()}…"
        table.add_row(f"{hit.score:.3f}", plain(hit.source), _place(hit), plain(answer))
    return table


def _place(hit: Hit) -> str:
    if hit.page is not None:
        return f"page {hit.page}"
    return "" if hit.start_s is None or hit.end_s is None else f"{hit.start_s:.1f}-{hit.end_s:.1f} s"
