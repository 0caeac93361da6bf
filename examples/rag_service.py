"""A small web service over a collection: search by words, by a picture, or by both, with the evidence as pictures.

    ume index photos films --store vectors
    python examples/rag_service.py --store vectors --port 8000
    curl 'http://127.0.0.1:8000/search?text=a+dog+jumps+into+the+water&kind=video'
    curl -F image=@chair.jpg -F text='this chair in blue' http://127.0.0.1:8000/search

Each hit names its crops or key frames by address; /docs shows everything there is. Nothing here blocks the event loop:
models and decoding work in threads, the store is awaited. There is no login and no rate limit: put it behind something
that has them.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import uvicorn
from fastapi import Depends, FastAPI, File, Form, HTTPException, Path, Query, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ume_qdrant import AsyncStore, Filter, Hit, Kind, asearch, open_async_store
from ume_retrieval import Item, Limits, ReasoningEmbedder, UmeError, errors
from ume_retrieval.media import load, open_image
from ume_retrieval.tcot.evidence import extract

STATUS: dict[type[UmeError], int] = {
    errors.MediaTooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.BrokenMedia: 422,
    errors.MediaNotFound: 410,  # it was indexed, and is gone
    errors.InputError: 422,
    errors.StoreLocked: 503,
    errors.CollectionNotFound: 503,
    errors.ReasoningError: 502,
}
"""What each error is to a client; the others are ours (500), or busy services (503)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service serves.

    Attributes:
        store: A folder, or a server's address.
        collection: Name of the collection.
        model: Preset, hub id or folder of the Embedder; the one that the collection was made with.
        max_upload_bytes: Most bytes of a request.
        max_pixels: Most pixels of an uploaded picture, however few bytes it has.
    """

    store: str = "ume-store"
    collection: str = "default"
    model: str = "ume-tiny"
    max_upload_bytes: int = 10_000_000
    max_pixels: int = 50_000_000


class EvidenceOut(BaseModel):
    """A crop or key frame."""

    url: str
    box: list[int] | None
    time_s: float | None


class HitOut(BaseModel):
    """One thing that was found, where it is, and why."""

    source: str
    kind: Kind
    score: float
    start_s: float | None
    end_s: float | None
    page: int | None
    answer: str | None
    keywords: list[str]
    evidence: list[EvidenceOut]


class SearchOut(BaseModel):
    """Hits, best first, and what the query was taken to mean."""

    meant: str | None
    hits: list[HitOut]


class Service:
    """What the routes share.

    Args:
        embedder: The models.
        store: The collection.
        settings: Limits.
    """

    def __init__(self, embedder: ReasoningEmbedder, store: AsyncStore, settings: Settings) -> None:
        self.embedder = embedder
        self.store = store
        self.limits = Limits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels)

    async def search(self, text: str | None, image: bytes | None, kind: Kind | None, limit: int) -> SearchOut:
        """Find what answers words, a picture, or both."""
        # Decoded here, with limits for what strangers send; the embedder's own are for the corpus.
        images = () if image is None else (await asyncio.to_thread(open_image, image, self.limits),)
        item = Item(text=text, images=images)
        where = Filter(kinds=(kind,)) if kind else None
        result = await asearch(
            self.embedder, self.store, item, limit=limit, where=where, target="video" if kind == "video" else None
        )
        meant = result.query_trace.tcot.answer if result.query_trace else None
        return SearchOut(meant=meant, hits=[self._out(hit) for hit in result.hits])

    async def evidence(self, point_id: str, number: int) -> bytes:
        """A piece of a point's evidence as PNG; a client names points, never paths."""
        points = await self.store.retrieve([point_id])
        if not points:
            raise HTTPException(404, "there is no such point")
        picture = await asyncio.to_thread(self._cut_out, Hit.of(point_id, 0.0, points[0].payload), number)
        if picture is None:
            raise HTTPException(404, "there is no such evidence")
        return picture

    def _cut_out(self, hit: Hit, number: int) -> bytes | None:
        if hit.trace is None or hit.kind == "text":
            return None
        # Key frames are numbered as the Reasoner saw the video; the Embedder says how much evidence it was shown.
        seen = (self.embedder.reasoner or self.embedder.embedder).spec.budget
        most = self.embedder.embedder.spec.budget.evidence_images
        found = extract(hit.trace, load(hit.item, seen, self.embedder.limits), most)
        if number >= len(found.images):
            return None
        encoded = io.BytesIO()
        found.images[number].save(encoded, "PNG")
        return encoded.getvalue()

    def _out(self, hit: Hit) -> HitOut:
        # In the order in which `extract` cuts them out.
        boxes = [([box.x1, box.y1, box.x2, box.y2], None) for box in hit.evidence.boxes]
        pieces = [*boxes, *((None, frame.time_s) for frame in hit.evidence.key_frames)]
        most = self.embedder.embedder.spec.budget.evidence_images
        return HitOut(
            source=hit.source,
            kind=hit.kind,
            score=hit.score,
            start_s=hit.start_s,
            end_s=hit.end_s,
            page=hit.page,
            answer=hit.answer,
            keywords=list(hit.evidence.keywords),
            evidence=[
                EvidenceOut(url=f"/evidence/{hit.point_id}/{number}", box=box, time_s=time_s)
                for number, (box, time_s) in enumerate(pieces[:most])
            ],
        )


class LimitBody:
    """Refuses requests with too many bytes while they arrive, whatever their headers promise; an ASGI middleware.

    Args:
        app: What answers the others.
        max_bytes: Most bytes of a body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what comes in."""
        left = self.max_bytes

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, f"a request may have {self.max_bytes:,} bytes")
            return message

        await self.app(scope, counted if scope["type"] == "http" else receive, send)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Given = Annotated[Service, Depends(_service)]
OfKind = Annotated[Kind | None, Query(description="only this kind")]
Most = Annotated[int, Query(ge=1, le=50, description="most hits")]


def create_app(settings: Settings) -> FastAPI:
    """The service, for any ASGI server; models are loaded when it starts."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        embedder = await asyncio.to_thread(ReasoningEmbedder.from_pretrained, settings.model)
        key = os.environ.get("QDRANT_API_KEY") if "://" in settings.store else None
        async with open_async_store(settings.store, settings.collection, api_key=key) as store:
            app.state.service = Service(embedder, store, settings)
            yield

    app = FastAPI(title="Search with evidence", lifespan=running)
    app.add_middleware(LimitBody, max_bytes=settings.max_upload_bytes)

    @app.exception_handler(UmeError)
    async def say_why(_: Request, error: UmeError) -> JSONResponse:
        status = next(
            (code for kind, code in STATUS.items() if isinstance(error, kind)), 503 if error.retryable else 500
        )
        body = {"error": error.code, "message": error.message, "hint": error.hint}
        return JSONResponse(body, status, {"Retry-After": "1"} if error.retryable else None)

    @app.get("/search")
    async def search_by_words(
        service: Given, text: Annotated[str, Query(min_length=1)], kind: OfKind = None, limit: Most = 5
    ) -> SearchOut:
        return await service.search(text, None, kind, limit)

    @app.post("/search")
    async def search_by_picture(
        service: Given,
        image: Annotated[UploadFile, File()],
        text: Annotated[str | None, Form()] = None,
        kind: OfKind = None,
        limit: Most = 5,
    ) -> SearchOut:
        return await service.search(text, await image.read(), kind, limit)

    @app.get("/evidence/{point_id}/{number}", response_class=Response)
    async def crop_or_key_frame(service: Given, point_id: UUID, number: Annotated[int, Path(ge=0, le=99)]) -> Response:
        return Response(await service.evidence(str(point_id), number), media_type="image/png")

    @app.get("/health")
    async def health(service: Given) -> dict[str, str | int]:
        return {"status": "ok", "collection": service.store.collection, "points": await service.store.count()}

    return app


def main() -> None:
    """Serve until Ctrl-C."""
    usual = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--store", default=usual.store, help="a folder, or a server's address (its key: $QDRANT_API_KEY)"
    )
    parser.add_argument("--collection", default=usual.collection)
    parser.add_argument("--model", default=usual.model, help="the Embedder that the collection was made with")
    parser.add_argument("--max-upload", type=int, default=usual.max_upload_bytes, help="most bytes of a request")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    settings = Settings(given.store, given.collection, given.model, max_upload_bytes=given.max_upload)
    uvicorn.run(create_app(settings), host=given.host, port=given.port)


if __name__ == "__main__":
    main()
