"""Truncation, precision and similarity."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import InputError, ReasoningEmbedder
from ume_retrieval.testing import fake_embedder
from ume_retrieval.vectors import Precision, cosine, dequantize, quantize, truncate, unit_rows

ROWS = st.builds(
    lambda seed, shape: unit_rows(np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)),
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 6), st.integers(1, 20)),
)
"""Unit rows, now and then a row of zeros."""

INTEGER = ("int8", "uint8", "binary", "ubinary")


@pytest.fixture
def embedder() -> ReasoningEmbedder:
    return fake_embedder()


@pytest.mark.parametrize("dimension", [1, 7, 63, 64])
def test_truncation_keeps_the_first_components_and_unit_length(embedder: ReasoningEmbedder, dimension: int) -> None:
    whole = embedder.encode_query(["a cat", "a dog"])
    short = embedder.encode_query(["a cat", "a dog"], truncate_dim=dimension)
    assert short.shape == (2, dimension)
    expected = whole[:, :dimension] / np.linalg.norm(whole[:, :dimension], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, rtol=1e-5)
    assert embedder.encode_query("a cat", truncate_dim=dimension).shape == (dimension,)
    count: Any = np.int64(dimension)
    np.testing.assert_array_equal(embedder.encode_query(["a cat", "a dog"], truncate_dim=count), short)


@pytest.mark.parametrize("dimension", [0, 4, 1.5, 2.0, "2", True, None])
def test_truncation_to_no_whole_number_of_components_is_refused(dimension: Any) -> None:
    with pytest.raises(InputError, match="truncate_dim") as caught:
        truncate(np.ones((2, 3), dtype=np.float32), dimension)
    assert "1 to 3" in caught.value.hint


@pytest.mark.parametrize(
    ("precision", "dtype", "width"),
    [
        ("float32", np.float32, 60),
        ("float16", np.float16, 60),
        ("int8", np.int8, 60),
        ("uint8", np.uint8, 60),
        ("binary", np.int8, 8),
        ("ubinary", np.uint8, 8),
    ],
)
def test_types_and_widths(embedder: ReasoningEmbedder, precision: Precision, dtype: type, width: int) -> None:
    stored = embedder.encode_corpus(["a cat", "a dog"], precision=precision, truncate_dim=60)
    assert stored.dtype == dtype
    assert stored.shape == (2, width)


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_binary_packs_signs_as_sentence_transformers_does(rows: npt.NDArray[np.float32]) -> None:
    packed = quantize(rows, "ubinary")
    assert packed.tolist() == np.packbits(rows > 0, axis=-1).tolist()
    assert quantize(rows, "binary").tolist() == (packed.astype(int) - 128).tolist()


@settings(max_examples=50, deadline=None)
@given(ROWS, st.sampled_from(["int8", "uint8", "float16"]))
def test_directions_survive_storage(rows: npt.NDArray[np.float32], precision: Precision) -> None:
    restored = dequantize(quantize(rows, precision), precision)
    for row, copy in zip(rows, restored, strict=True):
        # Rounding moves a component by at most half a step, and there are at most 20 of them.
        assert row.any() == copy.any()
        if row.any():
            assert row @ copy > 0.9995


@settings(max_examples=50, deadline=None)
@given(ROWS, st.sampled_from(get_args(Precision)))
def test_a_row_is_stored_alike_in_any_company(rows: npt.NDArray[np.float32], precision: Precision) -> None:
    together = quantize(rows, precision)
    for position in range(len(rows)):
        np.testing.assert_array_equal(quantize(rows[position : position + 1], precision)[0], together[position])


@pytest.mark.parametrize("precision", INTEGER)
def test_a_missing_row_is_zero_and_leaves_its_neighbours(precision: Precision) -> None:
    rows = unit_rows(np.array([[3, -4, 1], [np.nan] * 3, [-1, 2, 2]], dtype=np.float32))
    stored = quantize(rows, precision)
    assert not stored[1].any()
    np.testing.assert_array_equal(stored[[0, 2]], quantize(rows[[0, 2]], precision))


def test_binary_vectors_rank_like_their_signs() -> None:
    rows = unit_rows(np.array([[1, 1, 1, 1], [1, 1, 1, -1], [-1, -1, -1, 1]], dtype=np.float32))
    for precision in ("binary", "ubinary"):
        restored = dequantize(quantize(rows, precision), precision)  # type: ignore[arg-type]  # a str by iteration
        assert np.argsort(-cosine(restored[0], restored)[0]).tolist() == [0, 1, 2]


def test_missing_rows_stay_missing_when_truncated() -> None:
    rows = np.array([[np.nan, np.nan], [0.6, 0.8]], dtype=np.float32)
    assert np.isnan(truncate(rows, 1)[0]).all()
    assert truncate(rows, 1)[1].tolist() == [1.0]


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_similarity_is_the_cosine(rows: npt.NDArray[np.float32]) -> None:
    embedder = fake_embedder(reasoner=None)
    matrix = embedder.similarity(rows * 3, rows)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, rows @ rows.T, atol=1e-5)
    np.testing.assert_allclose(embedder.similarity(rows[0], rows), matrix[:1], atol=1e-6)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.ones((2, 3)), np.ones((2, 4))),
        (np.ones((2, 3, 1)), np.ones((2, 3))),
        (np.ones((2, 3), dtype=np.int8), np.ones((2, 3), dtype=np.int8)),
        (np.ones((2, 3)), np.ones((2, 3), dtype=np.uint8)),
    ],
)
def test_what_cannot_be_compared_is_refused(a: Any, b: Any) -> None:
    with pytest.raises(InputError) as raised:
        fake_embedder(reasoner=None).similarity(a, b)
    assert raised.value.hint
