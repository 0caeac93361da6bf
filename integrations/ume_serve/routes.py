"""The HTTP API under `/api`."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi import Path as InPath
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from ume_qdrant import Filter, SearchParams
from ume_qdrant.stores.sources import source_path
from ume_retrieval.errors import InputError, MediaNotFound, UmeError
from ume_retrieval.inputs import Item
from ume_serve.indexing import IndexJob, IndexState
from ume_serve.replies import HitOut, PointNotFound, SearchOut, error_body, shown_name
from ume_serve.service import THUMBNAIL_SIDE, Service, where_of

MOST_HITS = 100
MOST_OFFSET = 1000

router = APIRouter(prefix="/api")


class SearchIn(BaseModel):
    """A query and the settings of its search."""

    text: str | None = Field(None, max_length=20_000)
    like: UUID | None = Field(None, description="find what is like this point, in place of a text")
    kinds: list[Literal["image", "video", "page", "text"]] | None = None
    pages: list[Annotated[int, Field(ge=1)]] | None = Field(None, max_length=1000)
    time: tuple[float, float] | None = Field(None, description="only segments of video that overlap these seconds")
    mode: Literal["fused", "direct", "reasoned"] = "fused"
    reasoning: Literal["always", "never"] = "always"
    target: Literal["text", "image", "video"] | None = None
    group_by: Literal["point", "moment", "source"] = "point"
    diversity: float = Field(0.0, ge=0, le=1)
    limit: int = Field(10, ge=1, le=MOST_HITS)
    offset: int = Field(0, ge=0, le=MOST_OFFSET)
    threshold: float | None = Field(None, description="leave out hits with a lower score")

    def params(self) -> SearchParams:
        """Return the settings; hits before the offset are searched too."""
        target = self.target or ("video" if self.kinds == ["video"] else None)
        return SearchParams(
            limit=self.offset + self.limit,
            reasoning=self.reasoning,
            mode=self.mode,
            target=target,
            where=where_of(list(self.kinds or ()), self.pages, self.time),
            group_by=self.group_by,
            diversity=self.diversity,
        )


class Facets(BaseModel):
    """How many points there are of each kind."""

    kinds: dict[str, int]


class Collections(BaseModel):
    """What the server searches."""

    collection: str
    aliases: dict[str, str]
    points: int
    embedder: str
    reasoner: str | None
    dimension: int


def service_of(request: Request) -> Service:
    """Return what the routes share."""
    service: Service = request.app.state.service
    return service


def _job_of(request: Request) -> IndexJob:
    job: IndexJob = request.app.state.index_job
    return job


Shared = Annotated[Service, Depends(service_of)]
Job = Annotated[IndexJob, Depends(_job_of)]


@router.post("/search")
async def search(service: Shared, query: SearchIn) -> SearchOut:
    """Search with a text, or for what is like a point."""
    if query.like is not None:
        result = await service.similar(str(query.like), query.params())
    else:
        result = await service.search(Item(text=query.text), query.params())
    return SearchOut.of(result, offset=query.offset, threshold=query.threshold)


@router.post("/search/stream")
async def search_in_steps(service: Shared, query: SearchIn) -> EventSourceResponse:
    """Search as server-sent events: `hits` of the direct query at once, `hits` of the reasoned one, then `done`."""
    item, params = Item(text=query.text), query.params()
    return EventSourceResponse(_steps(service, item, params, query), ping=15)


@router.post("/search/upload")
async def search_by_upload(
    service: Shared,
    file: Annotated[UploadFile, File(description="a picture or video")],
    settings: Annotated[str, Form(description="settings as JSON, like the body of /api/search")] = "{}",
) -> SearchOut:
    """Search with an uploaded picture or video, and a text if there is one."""
    query = _settings(settings)
    with tempfile.TemporaryDirectory(prefix="ume-upload-") as folder:
        item = await _uploaded(service, file, query.text, Path(folder))
        result = await service.search(item, query.params())
    return SearchOut.of(result, offset=query.offset, threshold=query.threshold)


@router.post("/search/upload/stream")
async def search_by_upload_in_steps(
    service: Shared, file: Annotated[UploadFile, File()], settings: Annotated[str, Form()] = "{}"
) -> EventSourceResponse:
    """Search with an upload as server-sent events, see `/api/search/stream`."""
    query = _settings(settings)
    params, name, data = query.params(), file.filename, await file.read()

    async def steps() -> AsyncIterator[ServerSentEvent]:
        with tempfile.TemporaryDirectory(prefix="ume-upload-") as folder:
            try:
                item = await _decoded(service, data, name, query.text, Path(folder))
            except UmeError as error:
                yield _event("error", error_body(error))
                return
            async for event in _steps(service, item, params, query):
                yield event

    return EventSourceResponse(steps(), ping=15)


@router.get("/facets")
async def facets(service: Shared) -> Facets:
    """Count the points of each kind."""
    kinds: tuple[Literal["image", "video", "page", "text"], ...] = ("image", "video", "page", "text")
    return Facets(kinds={kind: await service.store.count(Filter(kinds=(kind,))) for kind in kinds})


@router.get("/collections")
async def collections(service: Shared) -> Collections:
    """Describe the collection."""
    meta = await service.store.meta()
    return Collections(
        collection=service.store.collection,
        aliases=await service.store.aliases(),
        points=await service.store.count(),
        embedder=shown_name(meta.model),
        reasoner=shown_name(meta.reasoner) if meta.reasoner else None,
        dimension=meta.dimension,
    )


@router.get("/points/{point_id}")
async def point(service: Shared, point_id: UUID) -> HitOut:
    """Return a point with its trace."""
    return HitOut.of(await service.hit(str(point_id)))


@router.delete("/points/{point_id}", status_code=204)
async def delete_point(service: Shared, point_id: UUID) -> None:
    """Remove a point; its file stays, and the next indexing of its folder adds it again."""
    await service.hit(str(point_id))
    await service.check_tenants()
    await service.store.delete([str(point_id)])


@router.get("/points/{point_id}/thumbnail", response_class=Response)
async def thumbnail(service: Shared, point_id: UUID) -> Response:
    """Return a small picture without boxes."""
    return _picture(await service.picture(str(point_id), THUMBNAIL_SIDE, boxes=False))


@router.get("/points/{point_id}/picture", response_class=Response)
async def picture(service: Shared, point_id: UUID, *, boxes: bool = True) -> Response:
    """Return the picture, page or first key frame, with the boxes of the trace."""
    return _picture(await service.picture(str(point_id), boxes=boxes))


@router.get("/points/{point_id}/evidence/{number}", response_class=Response)
async def evidence(service: Shared, point_id: UUID, number: Annotated[int, InPath(ge=0, le=99)]) -> Response:
    """Return a crop or key frame that the trace names, counted from 0."""
    return _picture(await service.evidence(str(point_id), number))


@router.get("/points/{point_id}/video", response_class=FileResponse)
async def video(service: Shared, point_id: UUID) -> FileResponse:
    """Return a point's video file; parts of it with a Range header."""
    hit = await service.hit(str(point_id))
    kind = mimetypes.guess_type(hit.source)[0] or ""
    if hit.kind != "video" or not kind.startswith("video/"):
        raise PointNotFound("the point has no video")
    path = source_path(hit.source)
    if not path.is_file():
        raise MediaNotFound("the video does not exist any more")
    return FileResponse(path, media_type=kind)


@router.post("/index", status_code=202)
async def start_indexing(job: Job) -> IndexState:
    """Index the files and folders that the server was started with; a run that goes on is not started twice."""
    return job.start()


@router.get("/index")
async def index_state(job: Job) -> IndexState:
    """Return how far indexing has got."""
    return job.state


@router.get("/index/events")
async def index_events(job: Job) -> EventSourceResponse:
    """Follow indexing as server-sent events `progress` until it ends."""

    async def events() -> AsyncIterator[ServerSentEvent]:
        async for state in job.states():
            yield _event("progress", state.model_dump())

    return EventSourceResponse(events(), ping=15)


async def _steps(service: Service, item: Item, params: SearchParams, query: SearchIn) -> AsyncIterator[ServerSentEvent]:
    try:
        async for result in service.search_in_steps(item, params):
            found = SearchOut.of(result, offset=query.offset, threshold=query.threshold)
            yield _event("hits", found.model_dump())
    except UmeError as error:
        yield _event("error", error_body(error))
    else:
        yield _event("done", {})


async def _uploaded(service: Service, file: UploadFile, text: str | None, folder: Path) -> Item:
    return await _decoded(service, await file.read(), file.filename, text, folder)


async def _decoded(service: Service, data: bytes, name: str | None, text: str | None, folder: Path) -> Item:
    """Return an uploaded picture or video as a query; only the suffix of the client's file name is used."""
    from ume_retrieval.media import open_image

    if (mimetypes.guess_type(name or "")[0] or "").startswith("video/"):
        path = folder / f"upload{Path(name or '').suffix.lower()}"
        await asyncio.to_thread(path.write_bytes, data)
        return Item(text=text or None, videos=(path,))
    return Item(text=text or None, images=(await asyncio.to_thread(open_image, data, service.limits),))


def _settings(text: str) -> SearchIn:
    from pydantic import ValidationError

    try:
        return SearchIn.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"settings: {error.errors()[0]['msg']}", hint="see the body of /api/search") from error


def _event(name: str, data: object) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data), event=name)


def _picture(data: bytes) -> Response:
    return Response(data, media_type="image/png", headers={"cache-control": "private, max-age=300"})
