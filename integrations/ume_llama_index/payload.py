"""Convert points to nodes and back, with one payload for `ume_qdrant`, LlamaIndex and plain Qdrant clients."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final

from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    MediaResource,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from ume_llama_index.nodes import (
    FILE_KEYS,
    PLACE_KEYS,
    REASONING_KEYS,
    exclude,
    is_file_part,
    is_text,
    item_of_node,
    names_file,
    own_metadata,
    trace_of,
)
from ume_qdrant.indexing.documents import document_payload
from ume_qdrant.stores.metadata import META_FIELD, clean_metadata
from ume_qdrant.stores.schema import MAX_TEXT, clean, document_point_id, evidence_of, tcot_of, within
from ume_qdrant.stores.sources import DOCUMENT_FIELD, source_path
from ume_retrieval.errors import InputError
from ume_retrieval.media import DEFAULT_LIMITS, Limits
from ume_retrieval.tcot.grammar import render

NODE_KEYS: Final = ("_node_content", "_node_type", "doc_id", "document_id", "ref_doc_id")
"""Payload fields from which LlamaIndex's stores read nodes."""

EVIDENCE_KEYS: Final = ("answer", "keywords", "boxes", "key_frames", "tcot")
"""Metadata of a retrieved node from its T-CoT."""

SHOWN: Final = ("source", "start_s", "end_s", "page", "answer")
"""Metadata of a retrieved node that the language model reads by default."""

SPLIT_FROM: Final = "split_from"
"""Payload field of pieces split from a file: the file's digest."""

KEPT_BACK: Final = frozenset({*FILE_KEYS, *REASONING_KEYS, "cut", SPLIT_FROM, META_FIELD})
"""Metadata that must not become payload fields, because `ume_qdrant` uses these names."""


def node_payload(payload: Mapping[str, Any], point_id: str) -> dict[str, Any]:
    """Return the fields with which LlamaIndex's stores read a point of `ume_qdrant` as a node with its media.

    Args:
        payload: The point's fields.
        point_id: The point's id, which is the node's.

    Example:
        >>> fields = node_payload({"source": "a.png", "kind": "image"}, "5c238ce5-5f2e-57c1-b3f6-b9051d94dd35")
        >>> fields["_node_type"], metadata_dict_to_node(fields).image_resource.path.name
        ('Node', 'a.png')
    """
    return _node_fields(_bare_node(payload, point_id), payload["source"])


def node_of_payload(payload: Mapping[str, Any], point_id: str, shown: Sequence[str] = SHOWN) -> BaseNode:
    """Convert a point to a node with its evidence in metadata.

    Metadata: `source`, `kind`, `start_s`, `end_s`, `page`; after reasoning also `answer`, `keywords`, `boxes`
    (`{x1, y1, x2, y2, image}`, 0..1000), `key_frames` (`{frame, time_s}`) and `tcot`, its text; and the metadata of the
    stored node, which take precedence.

    Args:
        payload: The point's fields.
        point_id: The point's id.
        shown: Names of metadata that the language model reads.
    """
    if payload.get("_node_content"):
        return with_evidence(metadata_dict_to_node(dict(payload)), payload, shown)
    return with_evidence(_bare_node(payload, point_id), payload, shown)


def with_evidence(node: BaseNode, fields: Mapping[str, Any], shown: Sequence[str] = SHOWN) -> BaseNode:
    """Add place and evidence to a node's metadata; see `node_of_payload`.

    Args:
        node: The node; changed and returned.
        fields: A point's payload, or the metadata of the stored node.
        shown: Names of metadata that the language model reads.
    """
    trace = trace_of(fields)
    tcot = tcot_of(trace)
    own = own_metadata(node)
    noted = {key: fields[key] for key in PLACE_KEYS if fields.get(key) is not None}
    if tcot is not None:
        evidence = evidence_of(trace)
        noted |= {
            "answer": tcot.answer,
            "keywords": list(evidence.keywords),
            "boxes": [asdict(box) for box in evidence.boxes],
            "key_frames": [asdict(frame) for frame in evidence.key_frames],
            "tcot": render(tcot),
        }
        if "tcot" in own:  # evidence of an earlier reading, replaced by this
            own = {key: value for key, value in own.items() if key not in EVIDENCE_KEYS}
    node.metadata = {**noted, **own}
    names = (*PLACE_KEYS, *FILE_KEYS, *EVIDENCE_KEYS, *REASONING_KEYS)
    ours = names if names_file(node) else [key for key in names if key not in own]
    exclude(node, ours, ours)
    visible = {key for key in shown if key in ours}
    node.excluded_llm_metadata_keys = [key for key in node.excluded_llm_metadata_keys if key not in visible]
    return node


def point_payload(node: BaseNode, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """Return the payload of a node's point: that of a part of a file, of a text, or of a document with media.

    Args:
        node: The node. One with media that `UmeReader` has not made becomes a document, see `ume_qdrant.Document`.
        limits: Limits on its media.

    Raises:
        MediaError: If a file of the node cannot be read.
        InputError: If the node has media that cannot be embedded.
    """
    part = is_file_part(node)
    later = part
    if names_file(node):
        text = node.text_resource.text if isinstance(node, Node) and node.text_resource else None
        text = text or (node.text if isinstance(node, TextNode) else None) or ""
        payload = _part_fields(node) if part else _split_fields(node, text)
    elif is_text(node):
        text = node.get_content()
        payload = {
            "source": node.ref_doc_id or node.node_id,
            "kind": "text",
            "parts": 1,
            "file_digest": sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            "size": len(text),
            "mtime_ns": 0,
        }
    else:
        payload = document_payload(item_of_node(node), node.node_id, limits)
        text, later = payload["text"], "in_memory" not in payload[DOCUMENT_FIELD]
    if DOCUMENT_FIELD not in payload:
        payload["within"] = within(payload["source"])
    state: dict[str, Any] = {"reasoning": "later" if later else "never", "reasoning_error": ""}
    trace = trace_of(node.metadata)
    if trace is not None:
        state |= {key: node.metadata[key] for key in REASONING_KEYS if key in node.metadata} | {"trace": trace}
    # As in `ume_qdrant`: media have the answer as text, for tools that show this field.
    payload["text"] = (text or state.get("trace", {}).get("answer", ""))[:MAX_TEXT]
    every = own_metadata(node)
    own = {key: value for key, value in every.items() if _goes_along(key, value)}
    cleaned: dict[str, Any] = clean({**own, **payload, **state, **_node_fields(node, payload["source"])})
    ours = (*PLACE_KEYS, *FILE_KEYS, *REASONING_KEYS) if names_file(node) else ()
    meta = filterable({key: value for key, value in every.items() if key not in ours})
    return {**cleaned, META_FIELD: meta} if meta else cleaned


def filterable(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a node's own metadata that filters can compare; the node keeps all of them.

    Example:
        >>> filterable({"owner": "ann", "matrix": [[1, 2]], "file.name": "a.txt"})
        {'owner': 'ann'}
    """
    found: dict[str, Any] = {}
    for key, value in own.items():
        with suppress(InputError):  # LlamaIndex's metadata may be any JSON
            found |= clean_metadata({key: value})
    return found


def content_digest(payload: Mapping[str, Any]) -> str:
    """Return the digest of the file that a point belongs to, or was split from."""
    digest: str = payload.get(SPLIT_FROM, payload["file_digest"])
    return digest


def _part_fields(node: BaseNode) -> dict[str, Any]:
    """Return the file fields of a whole part of a file."""
    payload: dict[str, Any] = {key: node.metadata[key] for key in (*PLACE_KEYS, *FILE_KEYS) if key in node.metadata}
    if "segment_s" in payload:
        payload["cut"] = [payload.pop("segment_s"), payload.pop("overlap_s")]
    return payload


def _split_fields(node: BaseNode, text: str) -> dict[str, Any]:
    """Return the file fields of a piece that was split from a part of a file.

    `ume index` must not mistake it for the part or count it as one, so it has its own digest and `parts` is 0.
    """
    place: dict[str, Any] = {key: node.metadata[key] for key in PLACE_KEYS if key in node.metadata}
    split_from = node.metadata["file_digest"]
    shown = json.dumps([split_from, *(place.get(key) for key in PLACE_KEYS), text])
    return {
        **place,
        SPLIT_FROM: split_from,
        "parts": 0,
        "file_digest": sha256(shown.encode("utf-8", "surrogatepass")).hexdigest(),
        "size": len(text),
        "mtime_ns": 0,
    }


def _goes_along(key: str, value: Any) -> bool:
    """Return whether a node's own metadata can be a payload field, unless one of our fields has its name."""
    numbers = key in ("start_s", "end_s", "page")
    return value is not None and key not in KEPT_BACK and (not numbers or isinstance(value, (int, float)))


def point_id_of(node_id: str) -> str:
    """Return the id of a node's point: the node's id if it is a UUID, otherwise a UUID derived from it.

    Example:
        >>> point_id_of("doc-1") == point_id_of("doc-1") != point_id_of("doc-2")
        True
    """
    return document_point_id(node_id)


def _bare_node(payload: Mapping[str, Any], point_id: str) -> BaseNode:
    metadata = {key: payload[key] for key in (*PLACE_KEYS, *FILE_KEYS) if payload.get(key) is not None}
    if payload.get("cut"):
        metadata["segment_s"], metadata["overlap_s"] = payload["cut"]
    hidden: dict[str, Any] = {
        "excluded_embed_metadata_keys": [*PLACE_KEYS, *FILE_KEYS, *REASONING_KEYS],
        "excluded_llm_metadata_keys": ["kind", *FILE_KEYS, *REASONING_KEYS],
        "relationships": {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=payload["source"])},
    }
    if payload["kind"] == "text":
        return TextNode(id_=point_id, text=payload.get("text", ""), metadata=metadata, **hidden)
    resource = {"image": "image_resource", "video": "video_resource"}.get(payload["kind"])
    media = {resource: MediaResource(path=source_path(payload["source"]))} if resource else {}
    return Node(id_=point_id, text_resource=MediaResource(text=""), metadata=metadata, **hidden, **media)


def _node_fields(node: BaseNode, source: str) -> dict[str, Any]:
    # The trace is stored in the payload only once, as a value.
    copy = node.model_copy(update={"metadata": own_metadata(node), "embedding": None})
    if isinstance(node, ImageDocument):  # would be read back as text only
        copy = Node(**{name: getattr(copy, name) for name in Node.model_fields})
    fields = node_to_metadata_dict(copy)
    if node.ref_doc_id is None:
        # So that delete(ref_doc_id) of a store deletes the whole file, and no document is called "None".
        fields |= dict.fromkeys(("doc_id", "document_id", "ref_doc_id"), source)
    return {key: fields[key] for key in NODE_KEYS}
