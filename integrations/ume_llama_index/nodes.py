"""Convert parts of files to LlamaIndex nodes, and nodes to inputs of the models."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
    ObjectType,
    TextNode,
)

from ume_qdrant.indexing.plan import Cut, Part, entry_id
from ume_qdrant.stores.schema import point_id
from ume_qdrant.stores.sources import item_of
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Item, Page
from ume_retrieval.media import Entry
from ume_retrieval.media.files import is_remote
from ume_retrieval.tcot.trace import TCot
from ume_retrieval.util.json_text import parse_json

PLACE_KEYS: Final = ("source", "kind", "start_s", "end_s", "page")
"""Metadata with the kind and place of a node's content."""

FILE_KEYS: Final = ("file_digest", "size", "mtime_ns", "parts", "segment_s", "overlap_s")
"""Metadata that identify a version of a file."""

REASONING_KEYS: Final = ("reasoning", "trace", "reasoner", "prompt_version", "reasoning_error")
"""Metadata that reasoning adds; `trace` is JSON text, so that stores with flat metadata accept it."""

DISPLACED: Final = "ume_displaced"
"""The node's own metadata whose names reasoning uses, as JSON text, until the node is written or read."""

TRACE_FIELDS: Final = frozenset(field.name for field in fields(TCot))
"""Fields that distinguish our `trace` from a foreign value of that name."""

MEDIA_MARK: Final = "\N{OBJECT REPLACEMENT CHARACTER} "
"""Prefix of the embedding text of media without text; the embedding refuses it."""


class UmeDocument(Document):
    """An image, a segment of a video, a page or a text, as `UmeReader` reads it.

    LlamaIndex reads a stored `Document` or `ImageDocument` back as text only, and hashes nodes without text alike or
    by their path. This class is stored under the name of `Node`, which keeps media, and its hash follows its content.
    """

    @classmethod
    def class_name(cls) -> str:
        """Class name that stores deserialise."""
        return Node.class_name()

    @classmethod
    def get_type(cls) -> str:
        """Object type."""
        return ObjectType.MULTIMODAL

    @property
    def hash(self) -> str:
        """Digest of source, place, content and your own metadata; independent of the file's time."""
        ours = (*PLACE_KEYS, *FILE_KEYS, *REASONING_KEYS, DISPLACED)
        own = {key: value for key, value in sorted(self.metadata.items()) if key not in ours}
        shown = [self.id_, *(self.metadata.get(key) for key in ("file_digest", *PLACE_KEYS)), self.text, own]
        return sha256(json.dumps(shown, default=str).encode("utf-8", "surrogatepass")).hexdigest()

    def get_content(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> str:
        """Return the text; for embedding of media without text, a marker that text embedding refuses."""
        content = super().get_content(metadata_mode)
        if metadata_mode is MetadataMode.EMBED and not (self.text_resource and self.text_resource.text):
            return f"{MEDIA_MARK}{self.metadata.get('source', self.id_)}"
        return content


def document_of(entry: Entry, *, parts: int, cut: Cut) -> UmeDocument:
    """Convert a discovered entry to a document with the id and metadata of its point in `ume_qdrant`.

    Args:
        entry: The entry.
        parts: Number of entries of its file.
        cut: Length and overlap of video segments in seconds.
    """
    payload = Part(entry, parts, cut).payload("later")
    metadata = {key: payload[key] for key in (*PLACE_KEYS, *FILE_KEYS, "reasoning") if key in payload}
    if entry.kind == "video":
        metadata |= dict(zip(("segment_s", "overlap_s"), cut, strict=True))
    resource = {
        "image": "image_resource",
        "video": "video_resource",
    }.get(entry.kind)
    media = {resource: MediaResource(path=entry.path)} if resource else {}
    return UmeDocument(
        id_=entry_id(entry),
        text_resource=MediaResource(text=entry.item.text or ""),
        metadata=metadata,
        excluded_embed_metadata_keys=[*PLACE_KEYS, *FILE_KEYS, *REASONING_KEYS],
        excluded_llm_metadata_keys=["kind", *FILE_KEYS, *REASONING_KEYS],
        **media,
    )


def names_file(node: BaseNode) -> bool:
    """Return whether a node has the metadata of `UmeReader`, which name its file and part."""
    return all(key in node.metadata for key in ("source", "kind", "file_digest", "size", "mtime_ns", "parts"))


def is_file_part(node: BaseNode) -> bool:
    """Return whether a node is a whole part of a file, with the id of the part's point in `ume_qdrant`.

    Pieces made by a splitter have the same metadata but other ids.
    """
    if not names_file(node):
        return False
    known = node.metadata
    place = {key: known.get(key) for key in ("start_s", "end_s", "page")}
    return node.node_id == point_id(known["source"], known["file_digest"], **place)


def trace_of(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the trace that reasoning added, in payload form (nodes have it as JSON text); None for a foreign `trace`.

    Example:
        >>> trace_of({"trace": "req-123"}) is None
        True
    """
    trace = known.get("trace")
    if isinstance(trace, str):
        try:
            trace = parse_json(trace)
        except ValueError:
            return None
    return trace if isinstance(trace, dict) and trace.keys() >= TRACE_FIELDS else None


def note_reasoning(node: BaseNode, noted: Mapping[str, Any]) -> None:
    """Add the result of reasoning to a node's metadata, hidden, and keep its own metadata of these names.

    Args:
        node: The node; changed.
        noted: Values of `REASONING_KEYS`, in payload form.
    """
    own: dict[str, Any] = {}
    if not names_file(node):
        own = {key: node.metadata[key] for key in REASONING_KEYS if key in node.metadata}
    displaced = {DISPLACED: json.dumps(own)} if own and trace_of(own) is None else {}
    trace = json.dumps(noted["trace"], ensure_ascii=False)
    node.metadata = {**node.metadata, **displaced, **noted, "trace": trace}
    exclude(node, (*REASONING_KEYS, DISPLACED), (*REASONING_KEYS, DISPLACED))


def own_metadata(node: BaseNode) -> dict[str, Any]:
    """Return a node's metadata without those that reasoning added."""
    known = node.metadata
    if not names_file(node) and trace_of(known) is None:
        return dict(known)
    kept = {key: value for key, value in known.items() if key not in (*REASONING_KEYS, DISPLACED)}
    return {**kept, **json.loads(known.get(DISPLACED, "{}"))}


def item_of_node(node: BaseNode) -> Item:
    """Convert a node to an input: its media, with its text if it has any.

    Accepts nodes of `UmeReader` and any other `Node`, `ImageNode` or text node. Metadata are part of the text for text
    nodes only, as LlamaIndex writes them for embedding.

    Raises:
        InputError: If the node has nothing that can be embedded: audio, video as bytes, or no content.

    Example:
        >>> item_of_node(Node(image_resource=MediaResource(path="cat.png"))).images
        (PosixPath('cat.png'),)
    """
    kind = node.metadata.get("kind")
    if names_file(node) and kind != "text":
        item = item_of(node.metadata)
        words = node.text_resource.text if isinstance(node, Node) and node.text_resource else None
        return Item(text=words or None, images=item.images, videos=item.videos)
    if isinstance(node, ImageNode):
        image = _decoded(node.image, node) if node.image else node.image_path or node.image_url
        if image:
            return Item(text=node.text or None, images=(_file(image, node),))
    if isinstance(node, Node):
        if node.audio_resource is not None:
            raise InputError(f"node {node.node_id} holds sound", hint="embed its text, or the frames of its video")
        images = [_image(node.image_resource, node)] if node.image_resource else []
        videos = [_video(node.video_resource, node)] if node.video_resource else []
        if images or videos:
            words = node.text_resource.text if node.text_resource else None
            return Item(text=words or None, images=tuple(images), videos=tuple(videos))
    text = node.get_content(metadata_mode=MetadataMode.EMBED)
    if not text.strip():
        raise InputError(f"node {node.node_id} is empty", hint="give it text, an image or a video")
    return Item(text=text)


def label_of(node: BaseNode) -> str:
    """Return a node's name in reports: its source and place, or its id."""
    source = node.metadata.get("source")
    if not isinstance(source, str):
        return node.node_id
    if not names_file(node):
        return source
    page, start = node.metadata.get("page"), node.metadata.get("start_s")
    return source + (f" page {page}" if page is not None else "") + (f" from {start:g} s" if start is not None else "")


def exclude(node: BaseNode, embed: Sequence[str], llm: Sequence[str]) -> None:
    """Exclude metadata from embedding and from the language model."""
    node.excluded_embed_metadata_keys = list(dict.fromkeys([*node.excluded_embed_metadata_keys, *embed]))
    node.excluded_llm_metadata_keys = list(dict.fromkeys([*node.excluded_llm_metadata_keys, *llm]))


def is_text(node: BaseNode) -> bool:
    """Return whether a node has text only."""
    if isinstance(node, ImageNode):
        return not (node.image or node.image_path or node.image_url)
    if isinstance(node, TextNode):
        return True
    media = ("image_resource", "video_resource", "audio_resource")
    kind = node.metadata["kind"] if names_file(node) else "text"
    return kind == "text" and all(getattr(node, name, None) is None for name in media)


def _image(resource: MediaResource, node: BaseNode) -> Any:
    if resource.data:
        return _decoded(resource.data, node)
    if resource.path and resource.path.suffix.lower() == ".pdf":
        return Page(resource.path, int(node.metadata.get("page", 1)))
    return _named(resource, node)


def _video(resource: MediaResource, node: BaseNode) -> Any:
    if resource.data:
        raise InputError(f"node {node.node_id} holds a video as bytes", hint="write it to a file and give its path")
    return _named(resource, node)


def _named(resource: MediaResource, node: BaseNode) -> Any:
    if resource.path:
        return resource.path
    if resource.url:
        return _file(str(resource.url), node)
    raise InputError(f"node {node.node_id} has a medium without path, data or address", hint="give it a path")


def _file(image: str | bytes, node: BaseNode) -> Any:
    """Return a path for a path or a file: address, bytes for base64 in a data: address."""
    if isinstance(image, bytes):
        return image
    if image.lower().startswith("file:"):
        return Path(url2pathname(urlsplit(image).path))
    if image.lower().startswith("data:"):
        return _decoded(image.partition(",")[2], node)
    # Another address stays a string, so that the pipeline can refuse it by name.
    return image if is_remote(image) else Path(image)


def _decoded(data: str | bytes, node: BaseNode) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise InputError(
            f"the image of node {node.node_id} is not base64", hint="encode its bytes as base64"
        ) from error
