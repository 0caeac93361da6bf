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
from ume_qdrant.stores.where import OPERATORS, parse_where
from ume_retrieval.errors import InputError, UmeError

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


def test_raw_filters_work_on_every_engine(engines: dict[str, Store]) -> None:
    payloads = [{"n": 1, "owner": "ann"}, {"n": 2, "tags": ["a", "b"]}, {"n": 3, "flag": True}]
    near = {"lat": 1.0, "lon": 1.0}
    for raw, wanted in (
        ({"must": [{"key": "meta.n", "range": {"gte": 2}}]}, {1, 2}),
        ({"must": {"key": "meta.flag", "match": {"value": True}}}, {2}),
        ({"must_not": [{"key": "meta.owner", "match": {"value": "ann"}}]}, {1, 2}),
        ({"should": [{"key": "meta.n", "match": {"any": [1, 3]}}, {"is_empty": {"key": "meta.n"}}]}, {0, 2}),
        ({"must": [{"key": "meta.owner", "match": {"except": ["bob"]}}]}, {0}),
        ({"must": [{"key": "meta.tags", "values_count": {"gte": 2}}]}, {1}),
        ({"min_should": {"conditions": [{"is_empty": {"key": "meta.owner"}}], "min_count": 1}}, {1, 2}),
        ({"must": [{"must_not": [{"has_id": [str(uuid.UUID(int=1))]}]}]}, {1, 2}),
        ({"must": [{"key": "meta.owner", "match": {"prefix": "an"}}]}, {0}),
        ({"must": [{"key": "meta.place", "geo_radius": {"center": near, "radius": 10.0}}]}, set()),
        ({"must": [{"has_vector": "direct"}]}, {0, 1, 2}),
    ):
        for name, store in engines.items():
            fill(store, payloads)
            assert matching(store, Filter(raw=raw)) == wanted, (name, raw)
            assert matching(store, Filter(raw=raw, meta=parse_where("n=1"))) == wanted & {0}, (name, raw)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"owner": "ann"},
        [],
        {"must": [{"key": "meta.n", "range": {"gte": float("nan")}}]},
        {"must": [{"match": {"value": 1}}]},
        {"must": [{"key": "meta.n", "match": {"like": "a"}}]},
        {"must": [{"key": "meta.n", "match": {"any": [1, "a"]}}]},
        {"must": [{"key": "meta.n", "range": {"about": 1}}]},
        {"must": [{"unknown": 1}]},
        {"must": [3]},
        {"must": [{"key": 3, "match": {"value": 1}}]},
        {"must": [{"key": "a[", "match": {"value": 1}}]},
        {"must": [{"key": "", "match": {"value": 1}}]},
        {"must": [{"has_id": 3}]},
        {"min_should": {"conditions": []}},
    ],
)
def test_other_raw_filters_are_typed_errors(engines: dict[str, Store], raw: Any) -> None:
    for store in engines.values():
        with pytest.raises(UmeError):
            store.count(Filter(raw=raw))


@pytest.mark.parametrize("raw", [{"must": [{"key": "meta.n"}]}, {"must": [{"has_id": ["no id"]}]}])
def test_edge_refuses_what_the_in_memory_engine_takes(engines: dict[str, Store], raw: Any) -> None:
    """The in-memory engine lets these match nothing; a server refuses them, too."""
    assert engines["memory"].count(Filter(raw=raw)) == 0
    with pytest.raises(UmeError):
        engines["edge"].count(Filter(raw=raw))


def test_a_deep_raw_filter_is_a_typed_error() -> None:
    deep: dict[str, Any] = {"must": [{"is_empty": {"key": "a"}}]}
    for _ in range(3_000):
        deep = {"must": [deep]}
    with pytest.raises(InputError):
        Filter(raw=deep)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("owner=ann", AnyOf("owner", ("ann",))),
        ("owner == 'ann lee'", AnyOf("owner", ("ann lee",))),
        (r'owner = "say \"a\""', AnyOf("owner", ('say "a"',))),
        ("'my key' = 1", AnyOf("my key", (1,))),
        ("year != 2020", Not(AnyOf("year", (2020,)))),
        ("year = '2020'", AnyOf("year", ("2020",))),
        ("zip = 01234", AnyOf("zip", ("01234",))),
        ("score >= -1.5e3", Range("score", gte=-1500.0)),
        ("draft = true", AnyOf("draft", (True,))),
        ("taken < 2024-05-01", Range("taken", lt=dt.date(2024, 5, 1))),
        ("taken > 2024-05-01T10:30:00Z", Range("taken", gt=dt.datetime(2024, 5, 1, 10, 30, tzinfo=UTC))),
        ("taken > '2024-05-01 10:30'", Range("taken", gt=dt.datetime(2024, 5, 1, 10, 30))),  # noqa: DTZ001  # as said
        ("tag in (a, 'b c', 3)", AnyOf("tag", ("a", "b c", 3))),
        ("tag not in (a)", Not(AnyOf("tag", ("a",)))),
        ("camera.maker exists", Exists("camera.maker")),
        ("owner missing", Not(Exists("owner"))),
        ("title ~= 'red circle'", ContainsWords("title", "red circle")),
        ("title *= Red", ContainsText("title", "Red")),
        ("a=1 or b=2 AND NOT c=3", Or((AnyOf("a", (1,)), And((AnyOf("b", (2,)), Not(AnyOf("c", (3,)))))))),
        ("(a=1 or b=2) and c=3", And((Or((AnyOf("a", (1,)), AnyOf("b", (2,)))), AnyOf("c", (3,))))),
    ],
)
def test_the_text_form(text: str, condition: Condition) -> None:
    assert parse_where(text) == condition


@pytest.mark.parametrize(
    ("text", "place", "wanted"),
    [
        ("", "''", "a key"),
        ("owner", "'owner'", "one of ="),
        ("owner = ", "'owner = '", "a value"),
        ("owner=ann year=1", "'owner=ann '", "'and', 'or'"),
        ("owner=ann and", "'owner=ann and'", "a key"),
        ("(a=1", r"'\(a=1'", r"'\)'"),
        ("a=1)", "'a=1'", "the end"),
        ("tag in a", "'tag in '", r"'\('"),
        ("tag in (a", "'tag in \\(a'", "',' or"),
        ("tag in ()", "'tag in \\('", "a value"),
        ("tag not a", "'tag not '", "'in'"),
        ("year >= new", "'year >= '", "new is not a number"),
        ("year >= true", "'year >= '", "true is not a number"),
        ("a=1 & b=2", "'a=1 '", "the end"),
        ("a ! b", "'a '", "not possible"),
        ("a='b", "'a='", "not possible"),
        ("a..b=1", "''", "cannot be a name"),
        ("a=1 and b[0]=2", "'a=1 and '", "cannot be a name"),
        ("n=9999999999999999999", "''", "64 bits"),
    ],
)
def test_errors_of_the_text_form_point_at_the_place(text: str, place: str, wanted: str) -> None:
    with pytest.raises(InputError, match=f"{wanted}.*{place} <- here"):
        parse_where(text)


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from([*OPERATORS, *"() ,", "and", "or", "not", "in", "a", "1"])).map(" ".join)
)
def test_any_text_is_a_condition_or_a_typed_error(text: str) -> None:
    try:
        condition = parse_where(text)
    except InputError:
        return
    Filter(meta=condition)


def test_nesting_is_bounded() -> None:
    for text in ("(" * 10_000, "not " * 4_000 + "a=1", "a=1 or " * 5_000):
        with pytest.raises(InputError):
            parse_where(text)
    condition: Condition = Exists("a")
    for _ in range(32):
        condition = Not(condition)
    with pytest.raises(InputError, match="nested deeper"):
        Not(condition)
