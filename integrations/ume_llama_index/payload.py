"""Points as nodes and nodes as points: one payload that `ume_qdrant`, LlamaIndex and a bare Qdrant client read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final

from llama_index.core.schema import BaseNode, MediaResource, Node, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from ume_llama_index.nodes import (
    FILE_KEYS,
    PLACE_KEYS,
    REASONING_KEYS,
    exclude,
    is_file_part,
    is_text,
    names_file,
    own_metadata,
    trace_of,
)
from ume_qdrant.stores.schema import MAX_TEXT, NAMESPACE, within
from ume_qdrant.stores.sources import source_path
from ume_qdrant.stores.traces import clean, evidence_of, tcot_of
from ume_retrieval.errors import InputError
from ume_retrieval.tcot.grammar import render

NODE_KEYS: Final = ("_node_content", "_node_type", "doc_id", "document_id", "ref_doc_id")
"""Payload fields that LlamaIndex's stores read nodes from."""

EVIDENCE_KEYS: Final = ("answer", "keywords", "boxes", "key_frames", "tcot")
"""Metadata that a retrieved node has of its T-CoT."""

SHOWN: Final = ("source", "start_s", "end_s", "page", "answer")
"""Metadata of a retrieved node that the language model reads unless asked otherwise."""

SPLIT_FROM: Final = "split_from"
"""Payload field of what was split from a part of a file: the file's digest."""

KEPT_BACK: Final = frozenset({*FILE_KEYS, *REASONING_KEYS, "cut", SPLIT_FROM})
"""Metadata that do not become payload fields: `ume_qdrant` would read them as its own."""


def node_payload(payload: Mapping[str, Any], point_id: str) -> dict[str, Any]:
    """The fields that let LlamaIndex's own stores read a point of `ume_qdrant` as a node with its media.

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
    """A point as a node with its evidence in metadata.

    Metadata: `source`, `kind`, `start_s`, `end_s`, `page`; where the point was reasoned over `answer`, `keywords`,
    `boxes` (`{x1, y1, x2, y2, image}`, 0..1000), `key_frames` (`{frame, time_s}`) and `tcot`, its written form; and
    what the node that was stored had, which wins where names are the same.

    Args:
        payload: The point's fields.
        point_id: The point's id.
        shown: Which of these the language model reads.
    """
    if payload.get("_node_content"):
        return with_evidence(metadata_dict_to_node(dict(payload)), payload, shown)
    return with_evidence(_bare_node(payload, point_id), payload, shown)


def with_evidence(node: BaseNode, fields: Mapping[str, Any], shown: Sequence[str] = SHOWN) -> BaseNode:
    """Note in a node's metadata where it lies and what its T-CoT points at; see `node_of_payload`.

    Args:
        node: The node; changed and returned.
        fields: What is known of it: a point's payload, or the metadata that it was stored with.
        shown: Which of these the language model reads.
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
        if "tcot" in own:  # the evidence of an earlier reading, which this is put in place of
            own = {key: value for key, value in own.items() if key not in EVIDENCE_KEYS}
    node.metadata = {**noted, **own}
    names = (*PLACE_KEYS, *FILE_KEYS, *EVIDENCE_KEYS, *REASONING_KEYS)
    ours = names if names_file(node) else [key for key in names if key not in own]
    exclude(node, ours, ours)
    told = {key for key in shown if key in ours}
    node.excluded_llm_metadata_keys = [key for key in node.excluded_llm_metadata_keys if key not in told]
    return node


def point_payload(node: BaseNode) -> dict[str, Any]:
    """The fields of a node's point.

    Raises:
        InputError: When the node shows a medium but does not say which part of which file it is.
    """
    part = is_file_part(node)
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
        raise InputError(
            f"node {node.node_id} does not say which part of which file it shows",
            hint="read folders with UmeReader, whose nodes do; or keep such nodes in another vector store",
        )
    payload["within"] = within(payload["source"])
    state: dict[str, Any] = {"reasoning": "later" if part else "never", "reasoning_error": ""}
    trace = trace_of(node.metadata)
    if trace is not None:
        state |= {key: node.metadata[key] for key in REASONING_KEYS if key in node.metadata} | {"trace": trace}
    # As `ume_qdrant` does: the answer stands in for the words of a medium, for tools that show this field.
    payload["text"] = (text or state.get("trace", {}).get("answer", ""))[:MAX_TEXT]
    own = {key: value for key, value in own_metadata(node).items() if _goes_along(key, value)}
    cleaned: dict[str, Any] = clean({**own, **payload, **state, **_node_fields(node, payload["source"])})
    return cleaned


def content_digest(payload: Mapping[str, Any]) -> str:
    """Digest of the file that a point of a file shows, or was split from."""
    digest: str = payload.get(SPLIT_FROM, payload["file_digest"])
    return digest


def _part_fields(node: BaseNode) -> dict[str, Any]:
    """What a point says of its file when it is one of the file's parts."""
    payload: dict[str, Any] = {key: node.metadata[key] for key in (*PLACE_KEYS, *FILE_KEYS) if key in node.metadata}
    if "segment_s" in payload:
        payload["cut"] = [payload.pop("segment_s"), payload.pop("overlap_s")]
    return payload


def _split_fields(node: BaseNode, text: str) -> dict[str, Any]:
    """What a point says of its file when it was split from one of the file's parts.

    `ume index` must take it neither for the part nor for a sign that the file is done, so its digest is its own, and
    its file has no such parts.
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
    """Whether a node's own metadata can be a payload field, where no field of ours has the name."""
    numbers = key in ("start_s", "end_s", "page")
    return value is not None and key not in KEPT_BACK and (not numbers or isinstance(value, (int, float)))


def point_id_of(node_id: str) -> str:
    """A node's id as a point's: itself when it is a UUID, else a UUID that follows from it.

    Example:
        >>> point_id_of("doc-1") == point_id_of("doc-1") != point_id_of("doc-2")
        True
    """
    try:
        return str(uuid.UUID(node_id))
    except ValueError:
        return str(uuid.uuid5(NAMESPACE, node_id))


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
    # The trace stands in the payload once, as a value.
    copy = node.model_copy(update={"metadata": own_metadata(node), "embedding": None})
    fields = node_to_metadata_dict(copy)
    if node.ref_doc_id is None:
        # So that a store's delete(ref_doc_id) takes the whole file, and nothing is of a document called "None".
        fields |= dict.fromkeys(("doc_id", "document_id", "ref_doc_id"), source)
    return {key: fields[key] for key in NODE_KEYS}
