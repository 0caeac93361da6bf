"""Tools for agents over the Model Context Protocol: search, evidence, state of the index; and points as resources."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from ume_qdrant import Hit, SearchParams
from ume_retrieval.errors import UmeError
from ume_retrieval.inputs import Item
from ume_serve.indexing import IndexJob, IndexState
from ume_serve.replies import HitOut, error_body, shown_name
from ume_serve.service import Service, where_of

SHOWN_LETTERS: Final = 300
"""Most characters of an answer or text in a result; the point's resource has all of it."""

EVIDENCE_SIDE: Final = 800
"""Most pixels of a side of a picture."""

MOST_FOUND: Final = 20

INSTRUCTIONS: Final = (
    "Searches pictures, videos, PDF pages and texts. Call search first; show_evidence shows the picture of a hit with "
    "the regions that answer the query. Ids are stable."
)


class Found(BaseModel):
    """A hit, short."""

    id: str
    name: str
    kind: str
    score: float
    seconds: tuple[float, float] | None = None
    page: int | None = None
    answer: str | None = None

    @classmethod
    def of(cls, hit: Hit) -> Found:
        """Describe a hit."""
        words = hit.answer or hit.text
        return cls(
            id=hit.point_id,
            name=shown_name(hit.source),
            kind=hit.kind,
            score=round(hit.score, 4),
            seconds=None if hit.start_s is None or hit.end_s is None else (hit.start_s, hit.end_s),
            page=hit.page,
            answer=words if words is None or len(words) <= SHOWN_LETTERS else f"{words[:SHOWN_LETTERS]}…",
        )


class IndexStatus(BaseModel):
    """What can be searched, and whether it is complete."""

    ready: bool
    collection: str
    points: int
    indexing: IndexState


def create_mcp(service: Service, job: IndexJob) -> MCPServer[Any]:
    """Build the MCP server of a service.

    Args:
        service: Models and store.
        job: Its indexing.
    """
    server: MCPServer[Any] = MCPServer("ume", instructions=INSTRUCTIONS, log_level="ERROR")

    @server.tool()
    async def search(
        text: Annotated[str, Field(min_length=1, max_length=20_000)],
        kinds: list[Literal["image", "video", "page", "text"]] | None = None,
        limit: Annotated[int, Field(ge=1, le=MOST_FOUND)] = 5,
    ) -> list[Found]:
        """Find pictures, moments of videos, pages and texts that answer a text; best first."""
        try:
            target: Literal["video"] | None = "video" if kinds == ["video"] else None
            params = SearchParams(limit=limit, where=where_of(list(kinds or ()), None, None), target=target)
            return [Found.of(hit) for hit in (await service.search(Item(text=text), params)).hits]
        except UmeError as error:
            raise _tool_error(error) from error

    @server.tool()
    async def show_evidence(id: UUID) -> list[str | Image]:  # noqa: A002  # the name that results give it
        """Show a hit: its picture or page with numbered boxes, or the key frame of its video, and why it was found."""
        try:
            hit = await service.hit(str(id))
            found = HitOut.of(hit)
            why = found.model_dump_json(include={"name", "kind", "answer", "boxes", "key_frames_s", "keywords", "text"})
            if hit.kind == "text":
                return [why]
            return [why, Image(data=await service.picture(str(id), EVIDENCE_SIDE), format="png")]
        except UmeError as error:
            raise _tool_error(error) from error

    @server.tool()
    async def index_status() -> IndexStatus:
        """Say what can be searched and whether indexing is going on."""
        try:
            return IndexStatus(
                ready=service.models.embedder is not None,
                collection=service.store.collection,
                points=await service.store.count() if await service.store.exists() else 0,
                indexing=job.state,
            )
        except UmeError as error:
            raise _tool_error(error) from error

    @server.resource("ume://points/{point_id}", mime_type="application/json")
    async def point(point_id: str) -> str:
        """A point with its trace."""
        return HitOut.of(await service.hit(str(UUID(point_id)))).model_dump_json()

    return server


def _tool_error(error: UmeError) -> ToolError:
    body = error_body(error)["error"]
    return ToolError(f"{body['code']}: {body['message']}" + (f" ({body['hint']})" if body["hint"] else ""))
