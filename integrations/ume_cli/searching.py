"""`ume search` and `ume report`."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer
from rich.table import Table

from ume_cli.option_groups import FilterOptions, ModelOptions, StoreOptions, grouped
from ume_cli.options import JsonOption
from ume_cli.output import command, plain

if TYPE_CHECKING:
    from ume_qdrant import Hit, SearchParams, SearchResult
    from ume_retrieval.inputs import Item
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder
    from ume_retrieval.reranking import Reranker

ANSWER_LETTERS = 200
"""Most characters of an answer, a text or metadata in the table; --json and reports contain all of it."""


class Kind(StrEnum):
    """Kinds of media."""

    IMAGE = "image"
    VIDEO = "video"
    PAGE = "page"
    TEXT = "text"


SearchMode: TypeAlias = Literal["fused", "direct", "reasoned"]
Group: TypeAlias = Literal["point", "moment", "source"]

TextArgument = Annotated[str | None, typer.Argument(help="Query text.", show_default=False)]


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """A query's media, and the settings of its search."""

    image: Annotated[list[Path] | None, typer.Option("--image", help="Query image; may be repeated.")] = None
    video: Annotated[list[Path] | None, typer.Option("--video", help="Query video; may be repeated.")] = None
    kind: Annotated[list[Kind] | None, typer.Option("--kind", help="Only hits of this kind; may be repeated.")] = None
    under: Annotated[list[Path] | None, typer.Option("--under", help="Only this file or folder; may be repeated.")] = (
        None
    )
    page: Annotated[list[int] | None, typer.Option("--page", min=1, help="Only this page; may be repeated.")] = None
    start: Annotated[float | None, typer.Option("--from", help="Only video after this second.")] = None
    end: Annotated[float | None, typer.Option("--to", help="Only video before this second.")] = None
    group_by: Annotated[Group, typer.Option("--group-by", help="One hit per point, moment or source.")] = "point"
    diversity: Annotated[float, typer.Option("--diversity", min=0, max=1, help="Weight of dissimilarity of hits.")] = (
        0.0
    )
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every full vector: slow, but misses nothing.")
    ] = False
    gate: Annotated[
        Path | None,
        typer.Option("--gate", help="Reason over the query only if this gate expects a benefit.", show_default=False),
    ] = None
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most hits.")] = 10
    mode: Annotated[SearchMode, typer.Option("--mode", help="Which vectors are compared.")] = "fused"
    rerank: Annotated[
        str | None,
        typer.Option(
            "--rerank",
            help="Order the best candidates by a reranker: a preset, a hub id, a folder, or `reasoner` (the T-CoTs).",
            show_default=False,
        ),
    ] = None
    rerank_candidates: Annotated[
        int, typer.Option("--rerank-candidates", min=1, help="Candidates that the reranker looks at.")
    ] = 20

    def item(self, text: str | None) -> Item:
        """Return the query."""
        from ume_retrieval.inputs import Item

        return Item(text=text, images=tuple(self.image or ()), videos=tuple(self.video or ()))

    def params(self, filters: FilterOptions) -> SearchParams:
        """Return the settings, with reasoning by the gate if there is one."""
        from ume_qdrant import SearchEffort, SearchParams
        from ume_qdrant.indexing.plan import roots_of
        from ume_retrieval.gate import Gate
        from ume_retrieval.media import display_name

        under, seconds = None, (self.start, self.end)
        if self.under:
            # Absolute and as given: a collection names its files in one way or the other.
            names = dict.fromkeys(map(display_name, (*roots_of(self.under), *map(os.path.normpath, self.under))))
            under = tuple(names)
        end = math.inf if self.end is None else self.end
        where = filters.filter(
            kinds=tuple(one.value for one in self.kind) if self.kind else None,
            under=under,
            pages=tuple(self.page) if self.page else None,
            time=None if seconds == (None, None) else (self.start or 0.0, end),
        )
        gate = Gate.load(self.gate) if self.gate else None
        return SearchParams(
            limit=self.limit,
            reasoning="auto" if gate else "always",
            gate=gate,
            mode=self.mode,
            target="video" if where is not None and where.kinds == ("video",) else None,
            where=where,
            group_by=self.group_by,
            diversity=self.diversity,
            effort=SearchEffort(exact=self.exact),
            rerank_candidates=self.rerank_candidates,
        )

    def reranker(self, embedder: ReasoningEmbedder, models: ModelOptions) -> Reranker | None:
        """Load the reranker that is asked for."""
        if self.rerank is None:
            return None
        if self.rerank == "reasoner":
            from ume_retrieval.reranking import TCotReranker

            return TCotReranker.of(embedder, window=self.rerank_candidates)
        from ume_retrieval.reranking import Reranker

        return Reranker.from_pretrained(self.rerank, engine=models.engine, device=models.device)


@grouped
def search(
    text: TextArgument = None,
    *,
    options: SearchOptions,
    filters: FilterOptions,
    place: StoreOptions,
    models: ModelOptions,
    as_json: JsonOption = False,
) -> None:
    """Search with text, images and videos, in any combination."""
    with command(as_json=as_json) as output:
        _, result = _find(options.item(text), options, filters, place, models)
        usage = result.usage
        spent = {
            "reasoned": usage.reasoner_calls + usage.cached_traces,
            "spared": usage.spared,
            "completion_tokens": usage.completion_tokens,
        }
        found: dict[str, Any] = {"hits": [hit.to_dict() for hit in result.hits], "usage": spent}
        lines: list[str] = []
        if options.rerank is not None:
            spent |= {"reranker_calls": usage.reranker_calls, "reranked_tokens": usage.reranked_tokens}
            found["failures"] = [asdict(one) for one in result.failures]
            lines = [f"not reranked: {plain(one.source)}: {plain(one.message)}" for one in result.failures]
        output.result(found, _table(result), *lines)


@grouped
def report(
    text: TextArgument = None,
    *,
    out: Annotated[Path, typer.Option(help="The HTML page to write.")] = Path("report.html"),
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (PNG).")] = None,
    options: SearchOptions,
    filters: FilterOptions,
    place: StoreOptions,
    models: ModelOptions,
    as_json: JsonOption = False,
) -> None:
    """Search, and write one HTML page with the hits and their evidence."""
    with command(as_json=as_json) as output:
        from ume_qdrant.searching.pictures import report_query
        from ume_retrieval.report import ReportPage, write_contact_sheet, write_html

        item = options.item(text)
        embedder, result = _find(item, options, filters, place, models)
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


def _find(
    item: Item, options: SearchOptions, filters: FilterOptions, place: StoreOptions, models: ModelOptions
) -> tuple[ReasoningEmbedder, SearchResult]:
    from ume_qdrant import search as search_store
    from ume_qdrant.stores.filters import as_qdrant_filter

    params = options.params(filters)
    with place.open() as opened:
        # A missing collection or tenant is refused before models are loaded; the collection is opened after that.
        opened.meta()
        as_qdrant_filter(params.where, opened.layout().tenant, place.collection)
        embedder = models.load()
        if embedder.reasoner is None:
            params = params.merge(reasoning="never")
        params = params.merge(rerank=options.reranker(embedder, models))
        return embedder, search_store(embedder, opened, item, params)


def _table(result: SearchResult) -> Table:
    from ume_retrieval.report.sanitize import one_line

    table = Table(box=None, pad_edge=False)
    is_reranked = any(hit.rerank_score is not None for hit in result.hits)
    noted = any(hit.meta for hit in result.hits)
    columns = ("score", "source", "where", "answer")
    for name in (*(("reranked",) if is_reranked else ()), *columns, *(("metadata",) if noted else ())):
        table.add_column(name, justify="right" if name in {"reranked", "score"} else "left", overflow="fold")
    for hit in result.hits:
        words = one_line(hit.answer or hit.text or "")
        answer = words if len(words) <= ANSWER_LETTERS else f"{words[:ANSWER_LETTERS].rstrip()}…"
        second = ("" if hit.rerank_score is None else f"{hit.rerank_score:.3f}",) if is_reranked else ()
        meta = (plain(_metadata(hit)),) if noted else ()
        table.add_row(*second, f"{hit.score:.3f}", plain(hit.source), _place(hit), plain(answer), *meta)
    return table


def _metadata(hit: Hit) -> str:
    shown = ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in hit.meta.items()
    )
    return shown if len(shown) <= ANSWER_LETTERS else f"{shown[:ANSWER_LETTERS].rstrip()}…"


def _place(hit: Hit) -> str:
    if hit.page is not None:
        return f"page {hit.page}"
    return "" if hit.start_s is None or hit.end_s is None else f"{hit.start_s:.1f}-{hit.end_s:.1f} s"
