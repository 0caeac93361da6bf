"""Find the media of points again: in their files, in object stores, or in what is stored of documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ume_qdrant.indexing.contents import content_digest
from ume_qdrant.indexing.objects import StoredObject, at_hand, is_address
from ume_qdrant.indexing.plan import ContentKey, Cut, content_key, entry_key
from ume_qdrant.stores.base import Point, Store
from ume_qdrant.stores.sources import DOCUMENT_FIELD, item_of, source_path
from ume_retrieval.errors import Failure, MediaError, RemoteNotAllowed, UmeError
from ume_retrieval.inputs import Item
from ume_retrieval.media import OVERLAP_S, SEGMENT_S, Entry, Limits, discover

CHANGED: Final = "its content has changed since it was indexed"


@dataclass(frozen=True, slots=True)
class Queued:
    """A point that waits for reasoning, with its media.

    Attributes:
        id: The point's id.
        source: Name in reports.
        item: Its media and text.
    """

    id: str
    source: str
    item: Item


class Locator(ExitStack):
    """Finds the media of points again, file by file; copies of objects are kept until their points are written.

    Args:
        store: The collection.
        limits: Limits on the cost of a file.
        folder: Folder of files with relative names.
        remote: Whether objects are fetched.
        fail: Called for each point whose content has changed or is gone.
    """

    def __init__(
        self,
        store: Store,
        limits: Limits,
        folder: str | Path | None,
        remote: bool,  # noqa: FBT001  # private; the public name is a keyword
        fail: Callable[[Failure], None],
    ) -> None:
        super().__init__()
        self._store = store
        self._limits = limits
        self._folder = folder
        self._remote = remote
        self._fail = fail
        self._copies: dict[str, tuple[ExitStack, int]] = {}

    def locate(self, pending: Mapping[str, Sequence[Point]]) -> Iterator[Queued]:
        """Yield the points with their media."""
        for source, points in pending.items():
            if any(DOCUMENT_FIELD in point.payload for point in points):
                yield from self._documents([point for point in points if DOCUMENT_FIELD in point.payload])
            files = [point for point in points if DOCUMENT_FIELD not in point.payload]
            if files:
                yield from self._file(source, files)

    def release(self, sources: Iterable[str]) -> None:
        """Delete the copies of objects of which all points are written."""
        for source in sources:
            if source in self._copies:
                copy, points = self._copies.pop(source)
                if points > 1:
                    self._copies[source] = copy, points - 1
                else:
                    copy.close()

    def _file(self, source: str, points: Sequence[Point]) -> Iterator[Queued]:
        cut = points[0].payload.get("cut", (SEGMENT_S, OVERLAP_S))
        failure = Failure(0, source, "media_error", CHANGED, "index its folder again", retryable=True)
        found: dict[ContentKey, Item] = {}
        for entry in self._entries(source, cut):
            if isinstance(entry, Failure):
                failure = replace(entry, source=source)
            else:
                found[entry_key(entry)] = entry.item
        there = [point for point in points if content_key(point.payload) in found]
        if source in self._copies:
            self._copies[source] = self._copies[source][0], len(there)
            if not there:
                self._copies.pop(source)[0].close()
        for point in points:
            if content_key(point.payload) not in found:
                self._fail(failure)
        for point in there:
            yield Queued(point.id, source, found[content_key(point.payload)])

    def _entries(self, source: str, cut: Cut) -> Iterator[Entry | Failure]:
        path, (segment_s, overlap_s) = source_path(source, self._folder), cut
        if is_address(source):
            if not self._remote:
                refused = RemoteNotAllowed("objects are not fetched", hint="allow it with remote=True (--remote)")
                yield Failure.of(refused, index=0, source=source)
                return
            copy = ExitStack()
            self.callback(copy.close)
            try:
                fetched = copy.enter_context(at_hand(StoredObject(source, source, 0, 0), self._limits))
            except UmeError as error:
                yield Failure.of(error, index=0, source=source)
                return
            if isinstance(fetched, Failure):
                yield fetched
                return
            self._copies[source] = copy, 0
            path = fetched.path
        yield from discover([path], limits=self._limits, segment_s=segment_s, overlap_s=overlap_s)

    def _documents(self, points: Sequence[Point]) -> Iterator[Queued]:
        for point in self._store.retrieve([point.id for point in points]):
            name = point.payload["doc_id"]
            try:
                item = item_of(point.payload, self._folder)
                in_files = item.images or item.videos
                if in_files and content_digest(item, self._limits) != point.payload["file_digest"]:
                    raise MediaError(CHANGED, hint="index the document again", retryable=True)
            except UmeError as error:
                self._fail(replace(Failure.of(error, index=0, source=name), retryable=True))
            else:
                yield Queued(point.id, name, item)
