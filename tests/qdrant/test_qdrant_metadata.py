"""Metadata of the user as JSON values of a payload."""

from __future__ import annotations

import datetime as dt
import enum
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_qdrant.stores.metadata import clean_metadata
from ume_retrieval.errors import InputError

SCALARS = st.one_of(
    st.text(max_size=5), st.integers(), st.floats(), st.booleans(), st.none(), st.dates(), st.datetimes()
)
VALUES = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=3) | st.binary(max_size=2),
    lambda inner: st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


class Colour(str, enum.Enum):  # noqa: UP042  # the older form, whose str() is not its value
    """An Enum of texts."""

    RED = "red"


def test_values_become_json() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    cleaned = clean_metadata(
        {
            "owner": "ann",
            "year": 2024,
            "score": np.float32(0.5),
            "flag": np.bool_(True),  # a value of the user
            "colour": Colour.RED,
            "nothing": None,
            "tags": ["a", None, "b"],
            "taken": dt.datetime(2024, 5, 1, 1, 30, tzinfo=zone),
            "naive": dt.datetime(2024, 5, 1, 1, 30),  # noqa: DTZ001  # what many files carry
            "day": dt.date(2024, 5, 1),
            "camera": {"lens": {"mm": 35}, "maker": None},
        }
    )
    assert cleaned == {
        "owner": "ann",
        "year": 2024,
        "score": 0.5,
        "flag": True,
        "colour": "red",
        "tags": ["a", "b"],
        "taken": "2024-04-30T23:30:00Z",
        "naive": "2024-05-01T01:30:00Z",
        "day": "2024-05-01",
        "camera": {"lens": {"mm": 35}},
    }
    assert cleaned["flag"] is True
    assert type(cleaned["colour"]) is str


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"": 1}, "''"),
        ({"a.b": 1}, "'a.b'"),
        ({"a[0]": 1}, r"'a\[0\]'"),
        ({"a": {"b\n": 1}}, r"'b\\n' in 'a'"),
        ({'say "a"': 1}, "say"),
        ({1: 2}, "1"),
        ({"a": float("nan")}, "'a'"),
        ({"a": {"b": float("inf")}}, r"'a\.b'"),
        ({"a": 2**63}, "64 bits"),
        ({"a": b"x"}, "bytes"),
        ({"a": [[1]]}, "list"),
        ({"a": [{"b": 1}]}, "dict"),
        ({"a": "\ud800"}, "Unicode"),
        ({"\ud800": 1}, "Unicode"),
        ({"a": dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=1)))}, "UTC"),
        ("owner=ann", "mapping"),
    ],
)
def test_other_values_are_typed_errors_that_name_the_key(metadata: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        clean_metadata(metadata)


def test_metadata_within_itself_is_a_typed_error() -> None:
    looped: dict[str, object] = {}
    looped["again"] = looped
    with pytest.raises(InputError, match="nested deeper"):
        clean_metadata(looped)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_any_metadata_become_json_or_a_typed_error(metadata: dict[str, object]) -> None:
    try:
        cleaned = clean_metadata(metadata)
    except InputError:
        return
    assert json.loads(json.dumps(cleaned, allow_nan=False)) == cleaned
    assert clean_metadata(cleaned) == cleaned
