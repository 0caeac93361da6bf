"""Filters on points, independent of the engine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from ume_qdrant.stores.conditions import Condition, as_qdrant, field_of
from ume_retrieval.errors import InputError, StoreMismatch, TenantRequired

Kind: TypeAlias = Literal["image", "video", "page", "text"]
"""Kind of a point's media."""

ReasoningState: TypeAlias = Literal["done", "later", "never", "failed"]
"""Whether a point has a `reasoned` vector, is queued for it, is excluded from it, or failed to get it."""

CLAUSES: Final = ("must", "should", "must_not", "min_should")
"""Clauses of a filter of Qdrant."""

MAX_RAW: Final = 64
"""Deepest nesting of a raw filter's objects and lists."""


class Tenants(Enum):
    """Choices of tenants other than a single one."""

    ANY = "any"


ANY_TENANT: Final = Tenants.ANY
"""All tenants, for administration: `Filter(tenant=ANY_TENANT)`."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on points; all given conditions must hold.

    None does not restrict. An empty tuple matches nothing, so that an empty list never selects everything.

    Attributes:
        kinds: Kinds of media.
        sources: Exact source names.
        doc_ids: Exact names of documents, as other integrations write them; `index` writes the source.
        under: Files or folders; matches sources that are one of them or lie below one, by whole path components:
            "photos/a" does not match "photos/ab.jpg". A search takes a relative path both as it is, for collections
            with relative names, and from the working directory.
        pages: Page numbers, 1-based; matches pages only.
        time: Interval in seconds (start, end); matches segments that overlap it, and nothing without times.
        reasoning: States of reasoning.
        digests: SHA-256 of files, hex.
        ids: Point ids.
        meta: Condition on your own metadata; `parse_where` reads one from a text.
        tenant: The tenant, in a collection that has tenants (see `Layout`); ANY_TENANT is all of them. Every search,
            scroll and count there needs it, and no other condition can widen it.
        raw: A filter of Qdrant as JSON (`must`, `should`, `must_not`, `min_should`); its keys are paths in the payload,
            such as "meta.owner".

    Raises:
        InputError: If `time` ends before it starts, or a condition has values that no point can have.

    Example:
        >>> from ume_qdrant.stores.where import parse_where
        >>> Filter(kinds=("video",), meta=parse_where("owner=ann and year>=2020")).kinds
        ('video',)
    """

    kinds: tuple[Kind, ...] | None = None
    sources: tuple[str | Path, ...] | None = None
    doc_ids: tuple[str, ...] | None = None
    under: tuple[str | Path, ...] | None = None
    pages: tuple[int, ...] | None = None
    time: tuple[float, float] | None = None
    reasoning: tuple[ReasoningState, ...] | None = None
    digests: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    meta: Condition | None = None
    tenant: str | Tenants | None = None
    raw: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for name in ("kinds", "sources", "doc_ids", "under", "pages", "reasoning", "digests", "ids"):
            if isinstance(getattr(self, name), (str, int, Path)):
                raise InputError(f"a filter's {name} takes a tuple", hint=f"write {name}=(…,)")
        for name, known in (("kinds", get_args(Kind)), ("reasoning", get_args(ReasoningState))):
            if unknown := set(getattr(self, name) or ()) - set(known):
                raise InputError(
                    f"a filter's {name} cannot be {', '.join(map(repr, sorted(unknown, key=str)))}",
                    hint=f"use {', '.join(known)}",
                )
        if any(not isinstance(page, int) for page in self.pages or ()):
            raise InputError("a filter's pages are whole numbers", hint="write pages=(2, 3)")
        if self.time is not None and not self.time[0] < self.time[1]:
            raise InputError(f"a filter's time must end after it starts, got {self.time}")
        if self.meta is not None and not isinstance(self.meta, get_args(Condition)):
            raise InputError(
                f"a filter's meta is a condition, not {self.meta!r}", hint="write meta=parse_where('owner=ann')"
            )
        if self.tenant is not None and (not self.tenant or not isinstance(self.tenant, (str, Tenants))):
            raise InputError(f"a tenant is a text, not {self.tenant!r}", hint="write tenant='…', or ANY_TENANT for all")
        if self.raw is not None:
            object.__setattr__(self, "raw", _plain_filter(self.raw))

    def from_here(self) -> Filter:
        """Return the filter with relative folders both unchanged and resolved from the working directory."""
        if self.under is None:
            return self
        return replace(self, under=tuple(dict.fromkeys(name for path in self.under for name in _typed(str(path)))))


EVERYTHING: Final = Filter(tenant=ANY_TENANT)
"""Every point of every tenant, for administration."""


def for_all_tenants(where: Filter | None) -> Filter:
    """Return a filter for administration: of the tenant that it chooses, or of all tenants.

    Example:
        >>> for_all_tenants(Filter(kinds=("image",))).tenant, for_all_tenants(Filter(tenant="acme")).tenant
        (<Tenants.ANY: 'any'>, 'acme')
    """
    found = where or EVERYTHING
    return replace(found, tenant=ANY_TENANT) if found.tenant is None else found


def as_qdrant_filter(where: Filter | None, tenant_key: str | None, collection: str) -> dict[str, Any] | None:
    """Return a filter as JSON of Qdrant's REST interface, for every engine.

    Args:
        where: The filter; None does not restrict.
        tenant_key: The collection's tenant key, or None if it has no tenants.
        collection: Its name, for messages.

    Raises:
        TenantRequired: If the collection has tenants and the filter does not choose one.
        StoreMismatch: If the filter chooses a tenant and the collection has none.

    Example:
        >>> as_qdrant_filter(Filter(kinds=("image",), under=("/data/photos/",)), None, "films")["must"][1]
        {'key': 'within', 'match': {'any': ['/data/photos']}}
        >>> as_qdrant_filter(Filter(tenant="acme"), "customer", "films")
        {'must': [{'key': 'meta.customer', 'match': {'value': 'acme'}}]}
    """
    tenant = None if where is None else where.tenant
    if tenant_key is not None and tenant is None:
        raise TenantRequired(
            f"collection {collection!r} has tenants ({tenant_key}), and the filter does not choose one",
            hint="give Filter(tenant=…), --tenant on the command line; ANY_TENANT reads all of them",
        )
    if tenant_key is None and isinstance(tenant, str):
        raise StoreMismatch(
            f"collection {collection!r} has no tenants, so {tenant!r} cannot be chosen",
            hint="leave tenant out, or filter on metadata",
        )
    if where is None:
        return None
    must = _library_conditions(where)
    if where.meta is not None:
        must.append(as_qdrant(where.meta))
    if where.raw is not None:
        must.append(dict(where.raw))
    if isinstance(tenant, str) and tenant_key is not None:
        must.append({"key": field_of(tenant_key), "match": {"value": tenant}})
    return {"must": must}


def _library_conditions(where: Filter) -> list[dict[str, Any]]:
    """Return the conditions on fields of this library."""
    folders = None if where.under is None else [str(path).rstrip(os.sep) or str(path) for path in where.under]
    accepted = {
        "kind": where.kinds,
        "source": where.sources,
        "doc_id": where.doc_ids,
        "within": folders,
        "reasoning": where.reasoning,
        "file_digest": where.digests,
    }
    must: list[dict[str, Any]] = [
        {"key": name, "match": {"any": [str(value) for value in values]}}
        for name, values in accepted.items()
        if values is not None
    ]
    if where.pages is not None:
        must.append({"key": "page", "match": {"any": list(where.pages)}})
    if where.time is not None:
        start, end = where.time
        must += [{"key": "start_s", "range": {"lt": end}}, {"key": "end_s", "range": {"gt": start}}]
    if where.ids is not None:
        must.append({"has_id": list(where.ids)})
    return must


def _plain_filter(raw: object) -> dict[str, Any]:
    """Return a copy of a raw filter.

    Raises:
        InputError: If it is not a mapping of clauses, or not JSON.
    """
    if not isinstance(raw, Mapping) or not raw or any(name not in CLAUSES for name in raw):
        raise InputError(
            f"a raw filter is a mapping with {', '.join(CLAUSES)}, not {str(raw)[:80]!r}",
            hint="write {'must': [{'key': 'meta.owner', 'match': {'value': 'ann'}}]}",
        )
    try:
        copied = json.loads(json.dumps(dict(raw), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"a raw filter is JSON: {str(error)[:200]}") from error
    if _nesting(copied, MAX_RAW + 1) > MAX_RAW:
        raise InputError(f"a raw filter is nested deeper than {MAX_RAW}", hint="join conditions in one list")
    return dict(copied)


def _nesting(value: object, most: int) -> int:
    """Return how deep objects and lists are nested, at most `most`."""
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if entries is None or most == 0:
        return 0
    return 1 + max((_nesting(entry, most - 1) for entry in entries), default=0)


def _typed(path: str) -> tuple[str, ...]:
    if "://" in path:  # an address
        return (path,)
    return os.path.normpath(path), os.path.normpath(Path.cwd() / path)
