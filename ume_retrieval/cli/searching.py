"""`ume search` and `ume report`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, cast

import typer
from rich.markup import escape
from rich.table import Table

from ume_retrieval.cli.options import (
    DEFAULT_COLLECTION,
    DEFAULT_MODEL,
    DEFAULT_STORE,
    CollectionOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    ReasonerOption,
    StoreOption,
    load_embedder,
    open_named_store,
)
from ume_retrieval.cli.output import command
from ume_retrieval.inputs import Item

if TYPE_CHECKING:
    from ume_qdrant import Hit, SearchResult
    from ume_qdrant import Kind as KindName


class Kind(StrEnum):
    """What may be found."""

    IMAGE = "image"
    VIDEO = "video"
    PAGE = "page"
    TEXT = "text"


SearchMode: TypeAlias = Literal["fused", "direct", "reasoned"]
"""Which vectors are compared."""

TextArgument = Annotated[str | None, typer.Argument(help="What to look for, in words.", show_default=False)]
ImageOption = Annotated[list[Path] | None, typer.Option("--image", help="A picture to search with.")]
VideoOption = Annotated[list[Path] | None, typer.Option("--video", help="A video to search with.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="Most hits.")]
ModeOption = Annotated[SearchMode, typer.Option("--mode", help="Which vectors are compared.")]
KindOption = Annotated[list[Kind] | None, typer.Option("--kind", help="Only hits of this kind; may be repeated.")]


def search(
    text: TextArgument = None,
    *,
    image: ImageOption = None,
    video: VideoOption = None,
    kind: KindOption = None,
    limit: LimitOption = 10,
    mode: ModeOption = "fused",
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: ModelOption = DEFAULT_MODEL,
    reasoner: ReasonerOption = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Search with words, pictures and videos, in any mix."""
    with command(as_json=as_json) as output:
        item = Item(text=text, images=tuple(image or ()), videos=tuple(video or ()))
        result = _find(
            item,
            limit=limit,
            mode=mode,
            kind=kind,
            store=store,
            collection=collection,
            models=(model, reasoner, device),
        )
        output.result({"hits": [hit.to_dict() for hit in result.hits]}, _table(result))


def report(
    text: TextArgument = None,
    *,
    image: ImageOption = None,
    video: VideoOption = None,
    out: Annotated[Path, typer.Option(help="The HTML page to write.")] = Path("report.html"),
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) too.")] = None,
    kind: KindOption = None,
    limit: LimitOption = 10,
    mode: ModeOption = "fused",
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: ModelOption = DEFAULT_MODEL,
    reasoner: ReasonerOption = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Search, and write the hits with their evidence drawn as one HTML page."""
    with command(as_json=as_json) as output:
        from ume_retrieval.cli.pictures import report_query
        from ume_retrieval.report import ReportPage, write_contact_sheet, write_html

        item = Item(text=text, images=tuple(image or ()), videos=tuple(video or ()))
        result = _find(
            item,
            limit=limit,
            mode=mode,
            kind=kind,
            store=store,
            collection=collection,
            models=(model, reasoner, device),
        )
        page = ReportPage(title=text or "Search report", queries=(report_query(item, result.hits, result.query_trace),))
        written = {"report": str(write_html(page, out))}
        if sheet:
            written["sheet"] = str(write_contact_sheet(page, sheet))
        output.result(
            {"hits": [hit.to_dict() for hit in result.hits], **written}, *(f"wrote {path}" for path in written.values())
        )


def _find(
    item: Item,
    *,
    limit: int,
    mode: SearchMode,
    kind: list[Kind] | None,
    store: str,
    collection: str,
    models: tuple[str, str, str],
) -> SearchResult:
    from ume_qdrant import Filter
    from ume_qdrant import search as search_store

    kinds = cast("tuple[KindName, ...]", tuple(one.value for one in kind)) if kind else None
    with open_named_store(store, collection) as opened:
        opened.count()  # a collection that is missing or held by another process shows before models are loaded
        embedder = load_embedder(*models)
        return search_store(
            embedder,
            opened,
            item,
            limit=limit,
            mode=mode,
            reasoning="never" if embedder.reasoner is None else "always",
            target="video" if kinds == ("video",) else None,
            where=Filter(kinds=kinds) if kinds else None,
        )


def _table(result: SearchResult) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("score", "source", "where", "answer"):
        table.add_column(name, justify="right" if name == "score" else "left", overflow="fold")
    for hit in result.hits:
        table.add_row(f"{hit.score:.3f}", escape(hit.source), _where(hit), escape(hit.answer or hit.text or ""))
    return table


def _where(hit: Hit) -> str:
    if hit.page is not None:
        return f"page {hit.page}"
    return "" if hit.start_s is None or hit.end_s is None else f"{hit.start_s:.1f}-{hit.end_s:.1f} s"
