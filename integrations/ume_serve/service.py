"""What the routes share: the models, the store, and what is made of both."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ume_qdrant import (
    AsyncStore,
    Filter,
    Hit,
    QueryVectors,
    SearchParams,
    SearchResult,
    Store,
    ThreadStore,
    asearch,
    asearch_vectors,
    open_async_store,
    open_store,
)
from ume_qdrant.stores.base import VECTORS
from ume_retrieval.errors import InputError, StoreUnsupported, UmeError
from ume_retrieval.inputs import Item, LoadedItem
from ume_retrieval.media.limits import Isolation, Limits
from ume_serve.replies import NotReady, PointNotFound, error_body
from ume_serve.settings import Settings

if TYPE_CHECKING:
    import PIL.Image

    from ume_retrieval.pipeline.embedder import ReasoningEmbedder

PICTURE_SIDE = 1600
THUMBNAIL_SIDE = 320
"""Most pixels of a side."""


def limits_of(settings: Settings) -> Limits:
    """Return the limits for what is decoded."""
    isolation = Isolation(memory_bytes=1024**3, seconds=30, workers=2) if settings.isolate else None
    return Limits(max_pixels=settings.max_pixels, isolation=isolation)


def load_models(settings: Settings) -> ReasoningEmbedder:
    """Load the models that the settings name."""
    from ume_retrieval.pipeline.batching import Batching
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder

    return ReasoningEmbedder.from_pretrained(
        settings.model,
        reasoner=settings.reasoner,
        device=settings.device,
        engine=settings.engine,
        limits=limits_of(settings),
        batching=Batching(waiting=settings.max_queries),
    )


@dataclass(frozen=True, slots=True)
class Models:
    """Where loading the models has got to.

    Attributes:
        embedder: The models, when they are loaded.
        failure: Why they could not be loaded.
    """

    embedder: ReasoningEmbedder | None = None
    failure: str | None = None


class Service:
    """The models and the store.

    Args:
        settings: What is served.
        load: Loads the models; called in a thread.
    """

    def __init__(self, settings: Settings, load: Callable[[], ReasoningEmbedder]) -> None:
        self.settings = settings
        self.models = Models()
        self.limits = limits_of(settings)
        self._load = load
        # One object for both forms of a folder: a second one would find it locked.
        self.blocking_store, self.store = _open(settings)

    async def start(self) -> None:
        """Load the models; a failure is kept for `/ready`."""
        try:
            self.models = Models(embedder=await asyncio.to_thread(self._load))
        except UmeError as error:
            self.models = Models(failure=error_body(error)["error"]["message"])

    async def close(self) -> None:
        """Close the store."""
        await self.store.close()
        if "://" in self.settings.store:
            self.blocking_store.close()

    @property
    def embedder(self) -> ReasoningEmbedder:
        """The models.

        Raises:
            NotReady: Until they are loaded.
        """
        if self.models.embedder is None:
            raise NotReady(self.models.failure or "the models are being loaded", retryable=True)
        return self.models.embedder

    async def search(self, item: Item, params: SearchParams) -> SearchResult:
        """Find what answers a query."""
        if self.embedder.reasoner is None and params.reasoning == "always":
            params = params.merge(reasoning="never")
        return await asearch(self.embedder, self.store, item, params)

    async def search_in_steps(self, item: Item, params: SearchParams) -> AsyncIterator[SearchResult]:
        """Find what answers a query: hits of the direct query first, and those of the reasoned one when it is ready."""
        if params.reasoning == "always" and params.mode != "direct" and self.embedder.reasoner is not None:
            yield await self.search(item, params.merge(reasoning="never"))
        yield await self.search(item, params)

    async def similar(self, point_id: str, params: SearchParams) -> SearchResult:
        """Find what is like a point, without the point itself.

        Raises:
            PointNotFound: When it does not exist.
        """
        await self.check_tenants()
        points = await self.store.retrieve([point_id], vectors=VECTORS, fields=())
        if not points or not points[0].vectors:
            raise PointNotFound("the collection has no such point")
        vectors = points[0].vectors
        query = QueryVectors(direct=vectors.get("direct"), reasoned=vectors.get("reasoned"))
        hits = await asearch_vectors(self.store, query, params.merge(limit=params.limit + 1))
        return SearchResult(tuple(hit for hit in hits if hit.point_id != point_id)[: params.limit])

    async def check_tenants(self) -> None:
        """Raise if the collection has tenants: requests do not name one, and ids are not limited to one.

        Raises:
            StoreUnsupported: With the tenants' key.
        """
        tenant = (await self.store.layout()).tenant
        if tenant is not None:
            raise StoreUnsupported(
                f"the collection has tenants by {tenant!r}, which the server cannot keep apart",
                hint="search it with Filter(tenant=…) in Python or with `ume search --tenant`",
            )

    async def hit(self, point_id: str) -> Hit:
        """Return a point as a hit of score 0.

        Raises:
            PointNotFound: When it does not exist.
        """
        await self.check_tenants()
        points = await self.store.retrieve([point_id])
        if not points:
            raise PointNotFound("the collection has no such point")
        return Hit.of(point_id, 0.0, points[0].payload)

    async def picture(self, point_id: str, side: int = PICTURE_SIDE, *, boxes: bool = True) -> bytes:
        """Draw a point: its picture or page with boxes, or the first key frame of its video.

        Returns:
            A PNG file.
        """
        hit = await self.hit(point_id)
        return await asyncio.to_thread(self._draw, hit, side, boxes=boxes)

    async def evidence(self, point_id: str, number: int) -> bytes:
        """Cut out a piece of a point's evidence, counted from 0.

        Returns:
            A PNG file.
        """
        hit = await self.hit(point_id)
        return await asyncio.to_thread(self._cut_out, hit, number)

    def _draw(self, hit: Hit, side: int, *, boxes: bool) -> bytes:
        from ume_retrieval.report.annotate import draw_boxes

        loaded = self._loaded(hit)
        if loaded.images:
            image = loaded.images[0]
            # Drawn before scaling, so that lines and numbers keep their share of the picture.
            return _png(draw_boxes(image, hit.evidence.boxes) if boxes else image, side)
        frames = loaded.videos[0]
        times = [frame.time_s for frame in hit.evidence.key_frames if frame.time_s is not None]
        wanted = times[0] if times else frames.timestamps[0]
        nearest = min(range(len(frames.images)), key=lambda index: abs(frames.timestamps[index] - wanted))
        return _png(frames.images[nearest], side)

    def _cut_out(self, hit: Hit, number: int) -> bytes:
        from ume_retrieval.tcot.evidence import extract

        most = self.embedder.embedder.spec.budget.evidence_images
        found = () if hit.trace is None or hit.kind == "text" else extract(hit.trace, self._loaded(hit), most).images
        if not 0 <= number < len(found):
            raise PointNotFound("the point has no such evidence")
        return _png(found[number], PICTURE_SIDE)

    def _loaded(self, hit: Hit) -> LoadedItem:
        from ume_retrieval.media import load

        if hit.kind == "text":
            raise PointNotFound("a text has no picture")
        # Key frames are numbered as the Reasoner saw the video.
        seen = (self.embedder.reasoner or self.embedder.embedder).spec.budget
        return load(hit.item, seen, self.embedder.limits)


def where_of(kinds: list[str] | None, pages: list[int] | None, time: tuple[float, float] | None) -> Filter | None:
    """Return the filter of a request; None without conditions."""
    if not kinds and not pages and time is None:
        return None
    known = ("image", "video", "page", "text")
    if unknown := set(kinds or ()) - set(known):
        raise InputError(f"unknown kind {min(unknown)!r}", hint=f"use {', '.join(known)}")
    chosen = tuple(kind for kind in known if kind in (kinds or ()))
    return Filter(kinds=chosen or None, pages=tuple(pages) if pages else None, time=time)  # type: ignore[arg-type]  # checked above


def _open(settings: Settings) -> tuple[Store, AsyncStore]:
    if "://" not in settings.store:
        store = open_store(settings.store, settings.collection)
        return store, ThreadStore(store)
    key = os.environ.get("QDRANT_API_KEY")
    return (
        open_store(settings.store, settings.collection, api_key=key),
        open_async_store(settings.store, settings.collection, api_key=key),
    )


def _png(image: PIL.Image.Image, side: int) -> bytes:
    image = image.copy()
    image.thumbnail((side, side))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()
