"""Vectors and traces that can be taken over, because the same bytes are in the collection under another name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ume_qdrant.indexing.points import ContentKey, entry_key
from ume_qdrant.stores.base import VECTORS, Payload, Point, Store
from ume_qdrant.stores.filters import Filter
from ume_retrieval.media import Entry

CONTENT_FIELDS = ("file_digest", "kind", "start_s", "end_s", "page")
"""Payload fields that say what a point shows."""


class Donors:
    """Points by what they show, for the entries of one run.

    The collection is asked once for each file's bytes, before the first entry with them; points that the run writes
    itself are remembered as long as further entries have the same bytes.

    Args:
        store: The collection.
        entries: Everything that the run will write.
    """

    def __init__(self, store: Store, entries: Iterable[Entry]) -> None:
        self._store = store
        self._left = Counter(entry.file_digest for entry in entries)
        self._known: dict[str, dict[ContentKey, Point]] = {}

    def of(self, entries: Iterable[Entry]) -> dict[ContentKey, Point]:
        """Points that show what these entries show, with their vectors."""
        wanted = {entry_key(entry): entry.file_digest for entry in entries}
        self._ask({digest for digest in wanted.values() if digest not in self._known})
        return {key: self._known[digest][key] for key, digest in wanted.items() if key in self._known[digest]}

    def settle(self, entries: Iterable[Entry], written: Mapping[ContentKey, Point]) -> None:
        """Remember what was written for these entries while it can be of use, and forget what cannot any more."""
        for entry in entries:
            digest, key = entry.file_digest, entry_key(entry)
            self._left[digest] -= 1
            if self._left[digest] == 0:
                self._known.pop(digest, None)
            elif key in written:
                self._known.setdefault(digest, {})[key] = written[key]

    def _ask(self, digests: set[str]) -> None:
        for digest in digests:
            self._known[digest] = {}
        if not digests:
            return
        for point in self._store.scroll(Filter(digests=tuple(sorted(digests))), vectors=VECTORS):
            key = content_key(point.payload)
            known = self._known[point.payload["file_digest"]]
            # A point that was reasoned over already is worth more.
            if "direct" in point.vectors and (key not in known or "reasoned" in point.vectors):
                known[key] = point


def content_key(payload: Payload) -> ContentKey:
    """What a point shows, from its `CONTENT_FIELDS`."""
    return (
        payload["file_digest"],
        payload["kind"],
        payload.get("start_s"),
        payload.get("end_s"),
        payload.get("page"),
    )
