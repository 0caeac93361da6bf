"""Conditions on metadata mean the same on every engine, and their text form."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from ume_qdrant import CollectionMeta, EdgeStore, Filter, Point, Store
from ume_qdrant.stores.client import ClientStore
from ume_qdrant.stores.conditions import (
    And,
    AnyOf,
    Condition,
    ContainsText,
    ContainsWords,
    Exists,
    Not,
    Or,
    Range,
)
from ume_qdrant.stores.metadata import clean_metadata

META = CollectionMeta("model", "1", "family", 2)
UTC = dt.UTC
NAMES = ("owner", "my key", "n")
KEYS = (*NAMES, "in.n", "in.owner")

DAYS = st.sampled_from([dt.date(2024, 5, 1), dt.date(2024, 5, 2)])
TIMES = st.builds(
    lambda day, hour, zone: dt.datetime.combine(day, dt.time(hour), tzinfo=zone),
    DAYS,
    st.sampled_from([0, 1, 12, 23]),
    st.sampled_from([UTC, dt.timezone(dt.timedelta(hours=2)), None]),
)
TEXTS = st.sampled_from(["ann", "Ann", "red circle", "circle, RED!", "", "1", "true", "2024-05-01", "a_b", "é"])
NUMBERS = st.sampled_from([0, 1, 1.0, -1, 0.5, 2**53 + 1, 2**60, -(2**60), 1e300, 2020])
SCALARS = st.one_of(TEXTS, NUMBERS, st.booleans(), DAYS, TIMES)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.none()
METADATA = st.builds(
    lambda outer, inner: {**outer, **({"in": inner} if inner is not None else {})},
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
    st.none() | st.dictionaries(st.sampled_from(("n", "owner")), VALUES, max_size=2),
)
BOUNDS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("gt", "gte", "lt", "lte"), st.sampled_from([0, 1, 0.5, 2020, -1]))
) | st.fixed_dictionaries({}, optional=dict.fromkeys(("gt", "gte", "lt", "lte"), DAYS | TIMES))
KEY = st.sampled_from(KEYS)
LEAVES = st.one_of(
    st.builds(AnyOf, KEY, st.lists(SCALARS, max_size=3).map(tuple)),
    st.builds(lambda key, bounds: Range(key, **bounds), KEY, BOUNDS.filter(bool)),
    st.builds(Exists, KEY),
    st.builds(ContainsWords, KEY, st.sampled_from(["red", "RED circle", "re", "", "ann", "a", "b"])),
    st.builds(ContainsText, KEY, st.sampled_from(["red", "RED", "ir", "", "n"])),
)
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)


def instant(value: dt.date | str) -> dt.datetime | None:
    """The time that a value stands for; None for a text without one."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, dt.datetime):
        value = dt.datetime.combine(value, dt.time())
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def elements(payload: dict[str, Any], key: str) -> list[Any]:
    value: Any = payload
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            return []
        value = value[name]
    return value if isinstance(value, list) else [value]


def equals(stored: Any, wanted: Any) -> bool:
    if isinstance(wanted, dt.datetime):
        return isinstance(stored, str) and instant(stored) == instant(wanted)
    if isinstance(wanted, dt.date):
        time = instant(stored) if isinstance(stored, str) else None
        return time is not None and time.date() == wanted
    if isinstance(stored, (dict, bool)) or isinstance(wanted, bool):
        return type(stored) is type(wanted) and stored == wanted
    return isinstance(stored, str) == isinstance(wanted, str) and stored == wanted


def within(stored: Any, limits: dict[str, Any]) -> bool:
    dated = isinstance(next(iter(limits.values())), dt.date)
    if dated:
        value: Any = instant(stored) if isinstance(stored, str) else None
    else:
        value = None if isinstance(stored, (str, bool, dict)) else stored
    if value is None:
        return False
    for name, limit in limits.items():
        first = last = limit
        if dated:
            first = last = instant(limit)
            if not isinstance(limit, dt.datetime):
                last = first + dt.timedelta(days=1) - dt.timedelta(microseconds=1)
        holds = {"gt": value > last, "gte": value >= first, "lt": value < first, "lte": value <= last}
        if not holds[name]:
            return False
    return True


def holds(condition: Condition, payload: dict[str, Any]) -> bool:  # noqa: PLR0911  # one for each condition
    """The meaning of conditions, written down once more without an engine."""
    match condition:
        case And(inner):
            return all(holds(one, payload) for one in inner)
        case Or(inner):
            return any(holds(one, payload) for one in inner)
        case Not(one):
            return not holds(one, payload)
        case AnyOf(key, values):
            return any(equals(stored, wanted) for stored in elements(payload, key) for wanted in values)
        case Range():
            return any(within(stored, condition.limits()) for stored in elements(payload, condition.key))
        case Exists(key):
            return bool(elements(payload, key))
        case ContainsWords(key, text):
            wanted = set(re.findall(r"[^\W_]+", text.lower()))
            found = [re.findall(r"[^\W_]+", one.lower()) for one in elements(payload, key) if isinstance(one, str)]
            return bool(wanted) and any(wanted <= set(words) for words in found)
        case ContainsText(key, text):
            return any(text in one for one in elements(payload, key) if isinstance(one, str))


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Store]]:
    stores: dict[str, Store] = {
        "edge": EdgeStore(tmp_path_factory.mktemp("conditions"), "c"),
        "memory": ClientStore(QdrantClient(":memory:"), "c"),
    }
    for store in stores.values():
        store.create(META)
    yield stores
    for store in stores.values():
        store.close()


def fill(store: Store, payloads: list[dict[str, Any]]) -> None:
    store.delete([str(uuid.UUID(int=number + 1)) for number in range(6)])
    vectors: dict[Any, Any] = {"direct": np.array([1, 0], dtype=np.float32)}
    store.upsert([Point(str(uuid.UUID(int=n + 1)), vectors, {"meta": one}) for n, one in enumerate(payloads)])


def matching(store: Store, where: Filter) -> set[int]:
    found = {uuid.UUID(point.id).int - 1 for point in store.scroll(where, fields=())}
    assert store.count(where) == len(found)
    hits = store.search("direct", np.array([1, 0], dtype=np.float32), limit=10, where=where)
    assert {uuid.UUID(hit.id).int - 1 for hit in hits} == found
    return found


@settings(max_examples=150, deadline=None)
@given(payloads=st.lists(METADATA.map(clean_metadata), min_size=1, max_size=6), condition=CONDITIONS)
def test_engines_agree_with_the_meaning(
    engines: dict[str, Store], payloads: list[dict[str, Any]], condition: Condition
) -> None:
    wanted = {number for number, payload in enumerate(payloads) if holds(condition, payload)}
    for name, store in engines.items():
        fill(store, payloads)
        assert matching(store, Filter(meta=condition)) == wanted, name
