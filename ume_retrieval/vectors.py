"""Fuse, truncate and quantize vectors, with the precision names of sentence-transformers."""

from __future__ import annotations

import operator
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ume_retrieval.errors import InputError

Precision: TypeAlias = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
"""How a vector is stored; see `quantize`."""

FloatRows: TypeAlias = npt.NDArray[np.float32]
Floats: TypeAlias = npt.NDArray[np.float64]


def fuse(direct: Floats, reasoned: Floats, weight: float = 0.5) -> Floats:
    """Return the weighted mean of a query's direct and reasoned cosine similarities.

    Both vectors come from one model, so their cosines share a scale, and a clear winner keeps its lead; reciprocal rank
    fusion would only keep the order.

    A missing reasoned similarity is estimated from the direct one, plus the mean difference between the two over the
    candidates that have both. So a partly enriched corpus is ranked fairly, even if reasoned cosines are higher or
    lower as a whole.

    Args:
        direct: Similarity of each candidate, shape (n,); NaN for a missing vector stays NaN.
        reasoned: Likewise; NaN for a missing similarity.
        weight: Weight of the reasoned similarity, 0..1.

    Returns:
        Fused similarities, shape (n,).

    Example:
        >>> fuse(np.array([0.25, 0.5]), np.array([0.75, np.nan]))
        array([0.5 , 0.75])
    """
    both = ~np.isnan(direct) & ~np.isnan(reasoned)
    offset = float((reasoned - direct)[both].mean()) if both.any() else 0.0
    return (1 - weight) * direct + weight * np.where(np.isnan(reasoned), direct + offset, reasoned)


def check_precision(precision: str) -> None:
    """Check the name of a precision.

    Raises:
        InputError: If it is not one of `Precision`.
    """
    if precision not in get_args(Precision):
        raise InputError(f"unknown precision {precision!r}", hint=f"use one of {', '.join(get_args(Precision))}")


def check_truncation(dimension: int, full: int) -> None:
    """Check the dimension of a truncation.

    Raises:
        InputError: If `dimension` is not an integer in 1..`full`.
    """
    try:
        fits = not isinstance(dimension, bool) and 1 <= operator.index(dimension) <= full
    except TypeError:
        fits = False
    if not fits:
        raise InputError(
            f"truncate_dim is {dimension!r}, but the vectors have {full} components",
            hint=f"use a whole number from 1 to {full}",
        )


def truncate(vectors: FloatRows, dimension: int) -> FloatRows:
    """Keep the first components and normalise the rows again (Matryoshka embeddings).

    Args:
        vectors: Shape (n, d).
        dimension: Number of components to keep, 1..d.

    Returns:
        Shape (n, dimension), rows L2-normalised; NaN rows stay NaN.

    Raises:
        InputError: If `dimension` is not an integer in 1..d.

    Example:
        >>> truncate(np.array([[0.6, 0.0, 0.8]], dtype=np.float32), 2)
        array([[1., 0.]], dtype=float32)
    """
    check_truncation(dimension, vectors.shape[1])
    return unit_rows(vectors[:, :dimension])


def unit_rows(vectors: FloatRows) -> FloatRows:
    """Scale rows to length 1; a row of zeros stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def quantize(vectors: FloatRows, precision: Precision) -> npt.NDArray[np.generic]:
    """Store vectors in fewer bytes.

    "int8" scales each row by itself so that its largest component becomes 127 or -127: it needs no calibration set,
    clips nothing, does not depend on the batch, and keeps cosines but not lengths. "uint8" is "int8" plus
    128. "binary" and "ubinary" keep the signs, eight per byte, exactly as sentence-transformers packs them.

    Args:
        vectors: Float32, shape (n, d). A NaN row becomes zeros in the integer precisions.
        precision: One of `Precision`.

    Returns:
        Shape (n, d), or (n, ceil(d / 8)) for the binary precisions.

    Example:
        >>> quantize(np.array([[0.6, -0.8, 0.0]], dtype=np.float32), "int8")
        array([[  95, -127,    0]], dtype=int8)
        >>> quantize(np.array([[0.6, -0.8, 0.1]], dtype=np.float32), "ubinary")
        array([[160]], dtype=uint8)
    """
    check_precision(precision)
    if precision in {"float32", "float16"}:
        return vectors.astype(precision)
    missing = np.isnan(vectors).any(axis=1)
    if precision in {"binary", "ubinary"}:
        packed = np.packbits(vectors > 0, axis=1)
        packed[missing] = 0 if precision == "ubinary" else 128
        return packed if precision == "ubinary" else (packed ^ 128).view(np.int8)
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    scaled = np.rint(vectors / np.where(largest == 0, 1, largest) * 127)
    scaled[missing] = 0 if precision == "int8" else -128
    return scaled.astype(np.int8) if precision == "int8" else (scaled + 128).astype(np.uint8)


def dequantize(stored: npt.NDArray[np.generic], precision: Precision) -> FloatRows:
    """Bring stored vectors back to float32 directions that can be compared.

    Args:
        stored: What `quantize` returned, shape (n, ...).
        precision: The precision that it was asked for.

    Returns:
        Float32, rows L2-normalised; for the binary precisions one component a bit, padding bits included, so shape
        (n, 8 * bytes).

    Example:
        >>> dequantize(np.array([[95, -127, 0]], dtype=np.int8), "int8").round(2)
        array([[ 0.6, -0.8,  0. ]], dtype=float32)
    """
    check_precision(precision)
    if precision in {"binary", "ubinary"}:
        packed = stored.view(np.uint8) ^ np.uint8(128 if precision == "binary" else 0)
        return unit_rows(np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1)
    return unit_rows(stored.astype(np.float32) - (128 if precision == "uint8" else 0))


def cosine(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatRows:
    """Cosine similarity of every row of `a` with every row of `b`.

    Args:
        a: Float vectors, shape (n, dim) or (dim,).
        b: Float vectors, shape (m, dim) or (dim,).

    Returns:
        Shape (n, m), values -1..1; a one-dimensional argument counts as one row.

    Raises:
        InputError: When shapes do not fit, or vectors are stored as integers.

    Example:
        >>> cosine([1.0, 0.0], [[2.0, 0.0], [0.0, 3.0]])
        array([[1., 0.]], dtype=float32)
    """
    left, right = (np.atleast_2d(np.asarray(vectors)) for vectors in (a, b))
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise InputError(f"cannot compare shapes {left.shape} and {right.shape}", hint="encode both the same way")
    if left.dtype.kind != "f" or right.dtype.kind != "f":
        raise InputError(
            f"cannot compare {left.dtype} with {right.dtype} vectors", hint="use ume_retrieval.vectors.dequantize first"
        )
    similarities: FloatRows = unit_rows(left.astype(np.float32)) @ unit_rows(right.astype(np.float32)).T
    return similarities
