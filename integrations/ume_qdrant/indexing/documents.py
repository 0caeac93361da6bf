"""Index documents of the caller: texts, bytes, pictures, files and items, with ids and metadata."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack, cast
from uuid import UUID

from ume_qdrant.admin.contents import forget_media
from ume_qdrant.indexing.contents import Document, Reading, item_of_content
from ume_qdrant.indexing.enrich import ReasonWriter, reason_now
from ume_qdrant.indexing.ingest import IndexReasoning, prepare
from ume_qdrant.indexing.labels import tenant_value
from ume_qdrant.indexing.plan import FIELDS, FileKey, Part, Plan, entry_id
from ume_qdrant.indexing.write import Writer
from ume_qdrant.reports import IndexReport, OnProgress, Progress, error_of, once_a_source
from ume_qdrant.stores.async_store import AsyncStore, BlockingStore, drawn
from ume_qdrant.stores.base import Point, Store, bounded
from ume_qdrant.stores.filters import ANY_TENANT, Filter, ReasoningState
from ume_qdrant.stores.layout import Layout
from ume_qdrant.stores.metadata import META_FIELD, clean_metadata
from ume_qdrant.stores.schema import MAX_TEXT, document_point_id
from ume_qdrant.stores.sources import DOCUMENT_FIELD, stored_item
from ume_retrieval.errors import Failure, InputError, Stopped, UmeError
from ume_retrieval.inputs import Item
from ume_retrieval.media import Entry, Limits, display_name
from ume_retrieval.media.formats import IMAGE_FORMATS, sniff
from ume_retrieval.media.segments import OVERLAP_S, SEGMENT_S, check_segments
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.loading import CHUNK_ITEMS

BATCH_BYTES: Final = 64_000_000
"""Bytes of contents in memory at which a batch ends."""


def index_documents(
    embedder: ReasoningEmbedder,
    store: Store,
    documents: Iterable[Document],
    *,
    reasoning: IndexReasoning | None = None,
    segment_s: float = SEGMENT_S,
    overlap_s: float = OVERLAP_S,
    strict: bool = False,
    batch_size: int = CHUNK_ITEMS,
    layout: Layout | None = None,
    keep_media: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> IndexReport:
    """Write documents to a collection; one with a known id replaces the former one.

    Documents are drawn and written a batch at a time, so a generator of any length can be given. A repeated call calls
    no model for documents that have not changed, and only writes metadata that have. Files of documents are independent
    of `index`, which neither updates nor removes them.

    A document is one point; a `Path` is one for each page of a PDF and each segment of a video, all with the document's
    id. A document that cannot be indexed is listed in `failed` by its id, and keeps its former points. So is an id that
    is given twice: the last one counts. Where the collection has tenants, so is a document whose metadata do not name
    its tenant; the same id of two tenants is two documents.

    Args:
        embedder: The models; its limits apply, and its `allow_remote` to addresses of images, which are not stored.
        store: The collection; created if it does not exist.
        documents: The documents.
        reasoning: "always" reasons over each batch at once, "later" leaves it to `enrich`, "never" excludes it. None is
            "always" with a Reasoner and "never" without one. Media in memory cannot be read again, so "later" refuses
            them unless they are kept.
        segment_s: Length of a video segment in seconds.
        overlap_s: Overlap of neighbouring segments in seconds.
        strict: Raise the first failure. Documents written before it are kept.
        batch_size: Documents that are written together, >= 1.
        layout: How a new collection stores its vectors; None is the plain layout, and accepts any existing one.
        keep_media: A folder in which images in memory and fetched ones are kept, so that `enrich`, reports and
            `hit.item` can read them; `delete` removes them with their documents. None keeps vectors only.
        on_progress: Called after each batch.

    Raises:
        StoreMismatch: If the collection was made with other models or prompts, or has another layout.
        InputError: If an argument is invalid.
        UmeError: If strict, the first failure; always, an error of the whole run, such as a lost server.
        Exception: Any error of the iterable; documents of earlier batches are kept.

    Example:
        >>> import tempfile
        >>> from ume_qdrant import open_store, search
        >>> from ume_retrieval.testing import FakeReasoner, HashEmbedder
        >>> embedder = ReasoningEmbedder(HashEmbedder(), FakeReasoner())
        >>> with open_store(Path(tempfile.mkdtemp()), "notes") as store:
        ...     report = index_documents(embedder, store, [Document("the last train home", id="note-1")])
        ...     search(embedder, store, "train").hits[0].id
        'note-1'
    """
    started = time.perf_counter()
    if isinstance(documents, (str, bytes, Mapping, Document)) or not isinstance(documents, Iterable):
        raise InputError(
            f"documents cannot be a {type(documents).__name__}", hint="give a list or a generator of Document"
        )
    check_segments(segment_s, overlap_s)
    chosen: IndexReasoning = reasoning or ("never" if embedder.reasoner is None else "always")
    state = prepare(embedder, store, chosen, layout, batch_size)
    folder = None if keep_media is None else Path(keep_media)
    run = _Run(
        Reading(embedder.limits, (segment_s, overlap_s), embedder.allow_remote, folder),
        Writer(embedder, store, state, strict=strict, report=lambda _: None),
        ReasonWriter(embedder, store, strict=strict),
        store.layout().tenant,
        chosen,
    )
    done = 0
    for batch in bounded(documents, batch_size, BATCH_BYTES, _bytes_of):
        run.write(batch, done, batch_size)
        done += len(batch)
        if on_progress is not None:
            on_progress(Progress("embed", done, None, run.name))
    store.optimize()
    writer, reasoned = run.writer, run.reasoned
    return IndexReport(
        indexed=len(writer.written),
        unchanged=run.unchanged,
        removed=0,
        failed=once_a_source([*run.failures, *writer.failures, *reasoned.failures]),
        moved=len(writer.moved - writer.embedded),
        relabelled=run.relabelled,
        points=writer.points,
        usage=writer.usage + reasoned.usage,
        seconds=time.perf_counter() - started,
    )


class DocumentOptions(TypedDict, total=False):
    """Keyword arguments of `index_documents`."""

    reasoning: IndexReasoning | None
    segment_s: float
    overlap_s: float
    strict: bool
    batch_size: int
    layout: Layout | None
    keep_media: str | Path | None
    on_progress: OnProgress | None


async def aindex_documents(
    embedder: ReasoningEmbedder,
    store: AsyncStore,
    documents: Iterable[Document] | AsyncIterable[Document],
    **options: Unpack[DocumentOptions],
) -> IndexReport:
    """`index_documents` for async stores and async iterables, without blocking the event loop.

    Models run in a worker thread. If the task is cancelled, the current batch is finished and nothing more is drawn.

    Args:
        embedder: The models.
        store: The collection.
        documents: The documents; an async iterable is drawn in the event loop.
        **options: As of `index_documents`, whose errors it raises too.
    """
    loop = asyncio.get_running_loop()
    stopped = threading.Event()
    # What is neither is refused by `index_documents`.
    given = drawn(documents, loop) if isinstance(documents, AsyncIterable) else documents
    checked = _until(stopped, given) if isinstance(given, Iterator) else given
    blocking = cast("Store", BlockingStore(store, loop))
    try:
        return await asyncio.to_thread(index_documents, embedder, blocking, checked, **options)
    except asyncio.CancelledError:
        stopped.set()
        raise


def _until(stopped: threading.Event, documents: Iterator[Document]) -> Iterator[Document]:
    for document in documents:
        if stopped.is_set():
            raise Stopped
        yield document


@dataclass(frozen=True, slots=True)
class DocumentPart(Part):
    """A document, or a part of its file.

    Attributes:
        document_id: The caller's id.
        kept: Files that were written for it.
    """

    document_id: str = ""
    kept: tuple[Path, ...] = ()

    @property
    def id(self) -> str:
        """Id of the point: that of the document, unless its file has several parts."""
        if self.parts == 1:
            return document_point_id(self.document_id, self.tenant)
        return entry_id(replace(self.entry, source=self.document_id, file_digest=""), self.tenant)

    def changing(self) -> tuple[str, ...]:
        """Names of fields that may change while the content stays; a kept file outlasts a content in memory."""
        moved = () if "in_memory" in self._stored() else ("source", DOCUMENT_FIELD)
        return (*Part.changing(self), *moved)

    def payload(self, state: ReasoningState) -> dict[str, Any]:
        """Return the point's fields. Without `within`, so that `index` of a folder leaves the point alone."""
        fields = Part.payload(self, state)
        del fields["within"]
        return {**fields, "doc_id": self.document_id, DOCUMENT_FIELD: self._stored()}

    def _stored(self) -> dict[str, Any]:
        """Return what the other fields do not say about the content."""
        item = self.entry.item
        kept = {"kept": [display_name(path) for path in self.kept]} if self.kept else {}
        if item.images or item.videos:
            plain = len(item.images) + len(item.videos) == 1 and item.text is None and item.instruction is None
            stored = stored_item(item)
            return {**({} if plain and "in_memory" not in stored else stored), **kept}
        text = {"text": item.text} if item.text and len(item.text) > MAX_TEXT else {}
        return {**text, **({"instruction": item.instruction} if item.instruction else {})}


def document_payload(item: Item, document_id: str, limits: Limits) -> dict[str, Any]:
    """Return the payload of a document of one item, for other writers of points.

    Args:
        item: The item; addresses are refused.
        document_id: The caller's id.
        limits: Limits on its media.

    Raises:
        MediaError: If a file cannot be read, or an address is given.
    """
    reading = Reading(limits, (SEGMENT_S, OVERLAP_S))
    entry = reading.item(reading.localize(item), document_id)
    return DocumentPart(entry, 1, reading.cut, document_id=document_id).payload("never")


@dataclass(slots=True)
class _Run:
    """Reads, writes and counts the documents of one run."""

    reading: Reading
    writer: Writer
    reasoned: ReasonWriter
    tenant_key: str | None
    reasoning: IndexReasoning
    unchanged: int = 0
    relabelled: int = 0
    name: str = ""
    failures: list[Failure] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def write(self, batch: Sequence[object], start: int, batch_size: int) -> None:
        """Write a batch of documents; `start` is the position of the first one."""
        made: dict[FileKey, list[DocumentPart]] = {}
        for number, document in enumerate(batch, start):
            self.name = _name(document, number)
            try:
                key, parts = self._parts(document, number)
            except UmeError as error:
                self._fail(Failure.of(error, index=number, source=self.name))
                continue
            first = document_point_id(*key)
            if first in self._seen:
                message = f"the id {key[0]!r} is given more than once; the last one counts"
                self._fail(Failure(number, self.name, InputError.code, message, "give each document its own id"))
            self._seen.add(first)
            made[key] = parts
        held = self._held(made)
        plan = Plan()
        for key, parts in made.items():
            plan.add(key[0], held.get(key, ()), parts, key[1])
        before = len(self.writer.failures)
        self.writer.write(plan, batch_size)
        failed = {failure.source for failure in self.writer.failures[before:]}
        replaced = [point for work in plan.work if work.source not in failed for point in held.get(work.key, ())]
        forget_media(replaced, keep=[path for parts in made.values() for part in parts for path in part.kept])
        self.unchanged += plan.unchanged
        self.relabelled += plan.relabelled
        if self.reasoning == "later":
            excluded = [p for points in held.values() for p in points if p.payload["reasoning"] == "never"]
            self.writer.store.update([Point(point.id, {}, {"reasoning": "later"}) for point in excluded])
        if self.reasoning == "always":
            reason_now(self.reasoned, [(key[0], part) for key, parts in made.items() for part in parts], batch_size)

    def _parts(self, document: object, number: int) -> tuple[FileKey, list[DocumentPart]]:
        """Read a document.

        Raises:
            UmeError: If it cannot be indexed.
        """
        if not isinstance(document, Document):
            raise InputError(
                f"document {number} is a {type(document).__name__}", hint="wrap it: Document(content, id=…, metadata=…)"
            )
        meta = clean_metadata(document.metadata)
        tenant = tenant_value(self.tenant_key, meta)
        given = None if document.id is None else _checked_id(document.id)
        content = document.content
        kept: tuple[Path, ...] = ()
        if isinstance(content, bytes) and self.reading.folder is not None and sniff(content) not in IMAGE_FORMATS:
            given = given or sha256(content).hexdigest()
            content = self.reading.keep(content, document_point_id(given, tenant))
            kept = (content,)
        if isinstance(content, Path):
            entries = self.reading.file(content)
            return self._made(given or entries[0].source, tenant, meta, entries, kept)
        item = self.reading.localize(item_of_content(content))
        given = given or self.reading.item(item, "").file_digest
        item, kept = self.reading.kept(item, document_point_id(given, tenant))
        if self.reasoning == "later" and "in_memory" in stored_item(item):
            raise InputError(
                "its media are in memory, so they cannot be reasoned over later",
                hint="use reasoning='always' or 'never', or keep_media=… a folder to keep them in",
            )
        return self._made(given, tenant, meta, [self.reading.item(item, given)], kept)

    def _made(
        self, name: str, tenant: str | None, meta: dict[str, Any], entries: Sequence[Entry], kept: tuple[Path, ...]
    ) -> tuple[FileKey, list[DocumentPart]]:
        count, cut = len(entries), self.reading.cut
        return (name, tenant), [DocumentPart(entry, count, cut, meta, tenant, name, kept) for entry in entries]

    def _held(self, made: Mapping[FileKey, object]) -> dict[FileKey, list[Point]]:
        """Return the points of these documents."""
        held: dict[FileKey, list[Point]] = {}
        if not made:
            return held
        where = Filter(doc_ids=tuple(dict.fromkeys(name for name, _ in made)), tenant=ANY_TENANT)
        for point in self.writer.store.scroll(where, fields=(*FIELDS, "doc_id", DOCUMENT_FIELD)):
            if DOCUMENT_FIELD in point.payload:
                tenant = None if self.tenant_key is None else point.payload.get(META_FIELD, {}).get(self.tenant_key)
                held.setdefault((point.payload["doc_id"], tenant), []).append(point)
        return held

    def _fail(self, failure: Failure) -> None:
        self.failures.append(failure)
        if self.writer.strict:
            raise error_of(failure)


def _bytes_of(document: object) -> int:
    """Return about how many bytes a document's content has in memory."""
    content = getattr(document, "content", None)
    media = (*content.images, *content.videos) if isinstance(content, Item) else (content,)
    pictures = [one for medium in media for one in getattr(medium, "images", (medium,))]
    return sum(len(one) if isinstance(one, (bytes, str)) else _pixels(one) for one in pictures)


def _pixels(picture: object) -> int:
    width, height = getattr(picture, "size", None) or (0, 0)
    return 3 * int(width) * int(height)


def _name(document: object, number: int) -> str:
    known = getattr(document, "id", None)
    return str(known) if isinstance(known, (str, UUID)) and str(known) else f"document {number}"


def _checked_id(value: object) -> str:
    """Return a document's id as text.

    Raises:
        InputError: If it is not one.
    """
    text = str(value) if isinstance(value, UUID) else value
    if not isinstance(text, str) or not text:
        raise InputError(f"an id is a text, not {value!r}", hint="give any text that is not empty, or None")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError("the id is not valid Unicode", hint="give any text that is not empty, or None") from error
    return text
