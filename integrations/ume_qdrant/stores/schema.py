"""What a collection looks like: its metadata, payload fields, payload indexes and point ids."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ume_retrieval.errors import StoreMismatch

if TYPE_CHECKING:
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder

SCHEMA_VERSION: Final = 1
"""Changes when stored points would be misread by older or newer code."""

NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "ume_qdrant")
"""Namespace of all point ids (uuid5)."""

INDEXES: Final[Mapping[str, Literal["keyword", "integer", "float"]]] = {
    "source": "keyword",
    "doc_id": "keyword",
    "within": "keyword",
    "kind": "keyword",
    "reasoning": "keyword",
    "file_digest": "keyword",
    "page": "integer",
    "start_s": "float",
    "end_s": "float",
}
"""Payload fields that are filtered on, with the kind of index that each gets."""

MAX_TEXT: Final = 10_000
"""Most characters of a text item that are kept for showing; the vectors come from all of it."""


@dataclass(frozen=True, slots=True)
class CollectionMeta:
    """What a collection was made with.

    Vectors of different models or prompts cannot be compared, so a collection takes those of one only. The Reasoner's
    fields are empty until the first `reasoned` vector is written.

    Attributes:
        model: Name of the Embedder.
        revision: Its commit or digest.
        family: Its family, and how items are written for it ("embed-rl/mmeb"; the library's own way is not named).
        dimension: Length of both named vectors.
        reasoner: Name of the Reasoner, or "".
        reasoner_revision: Its commit or digest, or "".
        prompt_version: Version of the prompts that the T-CoTs were made with, or "".
        schema: Version of this layout.

    Example:
        >>> made = CollectionMeta("ume-tiny", "abc", "embed-rl", 64)
        >>> made.check(CollectionMeta("ume-tiny", "def", "embed-rl", 64), "films")
        Traceback (most recent call last):
        ume_retrieval.errors.StoreMismatch: collection 'films' was made with revision 'abc', not 'def'
    """

    model: str
    revision: str
    family: str
    dimension: int
    reasoner: str = ""
    reasoner_revision: str = ""
    prompt_version: str = ""
    schema: int = SCHEMA_VERSION

    def check(self, wanted: CollectionMeta, collection: str) -> None:
        """Refuse to mix `wanted` with what the collection holds.

        The Reasoner's fields are compared only when both sides name one.

        Raises:
            StoreMismatch: Naming each value that differs, on both sides.
        """
        both_reason = bool(self.reasoner and wanted.reasoner)
        compared = [f.name for f in fields(self) if both_reason or f.name not in REASONER_FIELDS]
        differing = [(name, getattr(self, name), getattr(wanted, name)) for name in compared]
        differing = [(name, ours, theirs) for name, ours, theirs in differing if ours != theirs]
        if differing:
            said = ", ".join(f"{name} {ours!r}, not {theirs!r}" for name, ours, theirs in differing)
            raise StoreMismatch(
                f"collection {collection!r} was made with {said}",
                hint="use the models it was made with, or index into a collection of another name",
            )

    def check_length(self, vector: npt.NDArray[np.float32], collection: str) -> None:
        """Refuse a vector that the collection cannot hold or compare.

        Raises:
            StoreMismatch: Naming both lengths.
        """
        if vector.shape != (self.dimension,):
            raise StoreMismatch(
                f"collection {collection!r} holds vectors of {self.dimension} values, not of shape {vector.shape}",
                hint=f"use vectors of {self.model!r}, as they come, or a collection of another name",
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, under one key so that a collection may carry other metadata too."""
        return {"ume": asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None, collection: str) -> CollectionMeta:
        """Read what `to_dict` wrote.

        Raises:
            StoreMismatch: When the collection does not say what it was made with.
        """
        try:
            return cls(**dict((data or {})["ume"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreMismatch(
                f"collection {collection!r} does not say which model it was made with",
                hint="it was not made by this library (or by a newer version): choose another collection name",
            ) from error


def meta_of(embedder: ReasoningEmbedder, *, reasoned: bool) -> CollectionMeta:
    """What a collection made with these models says of itself.

    Args:
        embedder: The models.
        reasoned: Whether `reasoned` vectors are concerned; only then does the Reasoner count.
    """
    info = embedder.info
    meta = CollectionMeta(
        info.embedder.name, info.embedder.revision, embedder.embedder.spec.writing, embedder.dimension
    )
    if not reasoned or info.reasoner is None:
        return meta
    return replace(
        meta,
        reasoner=info.reasoner.name,
        reasoner_revision=info.reasoner.revision,
        prompt_version=info.prompt_version or "",
    )


REASONER_FIELDS: Final = ("reasoner", "reasoner_revision", "prompt_version")


def point_id(
    source: str, digest: str, *, start_s: float | None = None, end_s: float | None = None, page: int | None = None
) -> str:
    """The id of a point: uuid5 of source, place in the source and content.

    The same file at the same place always gets the same id, so that writing it twice changes nothing; a changed file
    gets new ids, so that old and new are never mixed up.

    Args:
        source: Name of the file.
        digest: SHA-256 of its bytes, hex.
        start_s: First second of a segment, or None.
        end_s: Last second of a segment, or None.
        page: Page number, 1-based, or None.

    Example:
        >>> point_id("a.pdf", "00ff", page=1)
        '5c238ce5-5f2e-57c1-b3f6-b9051d94dd35'
    """
    seconds = [None if second is None else float(second) for second in (start_s, end_s)]
    return str(uuid.uuid5(NAMESPACE, json.dumps([source, digest, *seconds, page])))


def within(source: str) -> list[str]:
    """The source and every folder that it lies in, for `Filter.under`.

    Example:
        >>> within("photos/2024/cat.jpg")
        ['photos/2024/cat.jpg', 'photos/2024', 'photos']
    """
    path = PurePath(source)
    return [source, *(str(parent) for parent in path.parents if str(parent) != ".")]
