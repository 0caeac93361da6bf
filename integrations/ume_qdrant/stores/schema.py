"""The schema of collections: metadata, point ids, payload fields and indexes, and how payloads hold traces."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ume_qdrant.stores.conditions import check_key
from ume_retrieval.errors import InputError, StoreMismatch
from ume_retrieval.results import Trace
from ume_retrieval.tcot.grammar import render
from ume_retrieval.tcot.trace import Box, Problem, TCot

if TYPE_CHECKING:
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder

SCHEMA_VERSION: Final = 1
"""Incremented when older or newer code would misread stored points."""

NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "ume_qdrant")
"""Namespace of all point ids (uuid5)."""

IndexKind: TypeAlias = Literal["keyword", "integer", "float", "bool", "datetime", "text"]
"""Kind of a payload index: of texts that are compared whole, numbers, booleans, dates, or words of texts."""

INDEXES: Final[Mapping[str, IndexKind]] = {
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
"""Payload fields that filters use, with the kind of their index."""

MAX_TEXT: Final = 10_000
"""Most characters of a text item that are stored for display; vectors are made from all of it."""


@dataclass(frozen=True, slots=True)
class CollectionMeta:
    """Models and prompts that made a collection.

    Vectors of different models or prompts cannot be compared, so a collection accepts those of one pair only. The
    Reasoner's fields are empty until the first `reasoned` vector is written.

    Attributes:
        model: Name of the Embedder.
        revision: Its commit or digest.
        family: Its family, and how items are written for it ("embed-rl/mmeb"; the library's own way is not named).
        dimension: Length of both named vectors.
        reasoner: Name of the Reasoner, or "".
        reasoner_revision: Its commit or digest, or "".
        prompt_version: Version of the prompts of its T-CoTs, or "".
        schema: Version of this schema.

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
        """Raise unless vectors of `wanted` can be compared with those of the collection.

        The Reasoner's fields are compared only if both sides name one.

        Raises:
            StoreMismatch: With both values of each field that differs.
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
        """Raise unless a vector has the collection's dimension.

        Raises:
            StoreMismatch: With both lengths.
        """
        if vector.shape != (self.dimension,):
            raise StoreMismatch(
                f"collection {collection!r} holds vectors of {self.dimension} values, not of shape {vector.shape}",
                hint=f"use untruncated vectors of {self.model!r}, or a collection of another name",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values under one key, so that a collection may have other metadata too."""
        return {"ume": asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None, collection: str) -> CollectionMeta:
        """Read what `to_dict` wrote.

        Raises:
            StoreMismatch: If the collection lacks this metadata.
        """
        try:
            return cls(**dict((data or {})["ume"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreMismatch(
                f"collection {collection!r} does not say which model it was made with",
                hint="it was not made by this library (or by a newer version): choose another collection name",
            ) from error


def meta_of(embedder: ReasoningEmbedder, *, reasoned: bool) -> CollectionMeta:
    """Return the metadata of a collection that these models make.

    Args:
        embedder: The models.
        reasoned: Include the Reasoner, because `reasoned` vectors are concerned.
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


def check_index(key: str, kind: IndexKind) -> None:
    """Raise unless metadata can have an index of this kind under this key.

    Raises:
        InputError: With the known kinds.
    """
    check_key(key)
    if kind not in get_args(IndexKind):
        raise InputError(f"unknown kind of index {kind!r}", hint=f"use {', '.join(get_args(IndexKind))}")


REASONER_FIELDS: Final = ("reasoner", "reasoner_revision", "prompt_version")


def point_id(
    source: str,
    digest: str,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    page: int | None = None,
    tenant: str | None = None,
) -> str:
    """Return the id of a point: uuid5 of source, place in the source and content.

    The same content at the same place always has the same id, so that a repeated write changes nothing; a changed file
    gets new ids, so that old and new points are never confused.

    Args:
        source: Name of the file.
        digest: SHA-256 of its bytes, hex.
        start_s: First second of a segment, or None.
        end_s: Last second of a segment, or None.
        page: Page number, 1-based, or None.
        tenant: The tenant that owns the point, so that each has its own; None in a collection without tenants.

    Example:
        >>> point_id("a.pdf", "00ff", page=1)
        '5c238ce5-5f2e-57c1-b3f6-b9051d94dd35'
    """
    seconds = [None if second is None else float(second) for second in (start_s, end_s)]
    owner = [] if tenant is None else [tenant]
    return str(uuid.uuid5(NAMESPACE, json.dumps([source, digest, *seconds, page, *owner])))


def document_point_id(document_id: str, tenant: str | None = None) -> str:
    """Return the id of a document's point: the document's id if it is a UUID, otherwise a UUID derived from it.

    Args:
        document_id: The caller's id.
        tenant: The tenant that owns the document; then the id is always derived, so that tenants never share a point.

    Example:
        >>> document_point_id("doc-1") == document_point_id("doc-1") != document_point_id("doc-1", "acme")
        True
    """
    if tenant is not None:
        return str(uuid.uuid5(NAMESPACE, json.dumps([document_id, tenant])))
    try:
        return str(uuid.UUID(document_id))
    except ValueError:
        return str(uuid.uuid5(NAMESPACE, document_id))


def within(source: str) -> list[str]:
    """Return the source and every folder above it, for `Filter.under`.

    Example:
        >>> within("photos/2024/cat.jpg")
        ['photos/2024/cat.jpg', 'photos/2024', 'photos']
    """
    path = PurePath(source)
    return [source, *(str(parent) for parent in path.parents if str(parent) != ".")]


def clean(value: Any) -> Any:
    r"""Replace lone surrogates, which neither UTF-8 nor the engines can represent.

    Example:
        >>> clean({"keywords": ["caf\ud800e"]})
        {'keywords': ['caf?e']}
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {clean(key): clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(entry) for entry in value]
    return value


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A frame that the Reasoner pointed at.

    Attributes:
        frame: Its number among the sampled frames, 1-based.
        time_s: Its time in seconds from the start of the file; None for a frame that the Embedder did not get, because
            the trace names more frames than it takes.
    """

    frame: int
    time_s: float | None


@dataclass(frozen=True, slots=True)
class HitEvidence:
    """Evidence that a hit's trace points at.

    Attributes:
        keywords: Words of a text.
        boxes: Regions of an image or page, 0..1000.
        key_frames: Frames of a video.
    """

    keywords: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    key_frames: tuple[KeyFrame, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; a box is [x1, y1, x2, y2].

        Example:
            >>> HitEvidence(boxes=(Box(1, 2, 3, 4),), key_frames=(KeyFrame(5, 2.0),)).to_dict()
            {'keywords': [], 'boxes': [[1, 2, 3, 4]], 'key_frames': [{'frame': 5, 'time_s': 2.0}]}
        """
        return {
            "keywords": list(self.keywords),
            "boxes": [[box.x1, box.y1, box.x2, box.y2] for box in self.boxes],
            "key_frames": [asdict(frame) for frame in self.key_frames],
        }


def to_payload(trace: Trace) -> dict[str, Any]:
    """Convert a trace to JSON values: its generated text and its parts.

    Example:
        >>> tcot = TCot("two shapes", "sure", "a circle", key_frames=(2,))
        >>> to_payload(Trace(tcot, (), False, 0, 0, "id"))["key_frames"]
        [{'frame': 2, 'time_s': None}]
    """
    tcot = trace.tcot
    seconds = {ref.frame: ref.time_s for ref in trace.evidence if ref.kind == "frame"}
    payload = {
        "raw": tcot.raw or render(tcot),
        "thinking": tcot.thinking,
        "rethink": tcot.rethink,
        "answer": tcot.answer,
        "keywords": list(tcot.keywords),
        "boxes": [asdict(box) for box in tcot.boxes],
        "key_frames": [{"frame": frame, "time_s": seconds.get(frame)} for frame in tcot.key_frames],
        "problems": [asdict(problem) for problem in tcot.problems],
    }
    cleaned: dict[str, Any] = clean(payload)
    return cleaned


def tcot_of(payload: Mapping[str, Any] | None) -> TCot | None:
    """Read the T-CoT that `to_payload` wrote; None without a payload."""
    if not payload:
        return None
    return TCot(
        thinking=payload["thinking"],
        rethink=payload["rethink"],
        answer=payload["answer"],
        keywords=tuple(payload["keywords"]),
        boxes=tuple(Box(**box) for box in payload["boxes"]),
        key_frames=tuple(frame["frame"] for frame in payload["key_frames"]),
        problems=tuple(Problem(**problem) for problem in payload["problems"]),
        raw=payload["raw"],
    )


def evidence_of(payload: Mapping[str, Any] | None) -> HitEvidence:
    """Read the evidence of a trace; empty without a payload."""
    if not payload:
        return HitEvidence()
    return HitEvidence(
        keywords=tuple(payload["keywords"]),
        boxes=tuple(Box(**box) for box in payload["boxes"]),
        key_frames=tuple(KeyFrame(frame["frame"], frame.get("time_s")) for frame in payload["key_frames"]),
    )
