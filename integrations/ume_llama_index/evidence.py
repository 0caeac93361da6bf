"""Show a language model crops and key frames instead of whole files."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import PIL.Image
from llama_index.core.base.llms.types import BaseContentBlock, ImageBlock, TextBlock
from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MediaResource, MetadataMode, Node, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from ume_llama_index.embedding import UmeEmbedding
from ume_llama_index.events import LeftOutEvent
from ume_llama_index.nodes import is_text, item_of_node, label_of
from ume_retrieval.errors import Failure, UmeError
from ume_retrieval.inputs import LoadedItem
from ume_retrieval.media import load
from ume_retrieval.tcot.evidence import EvidenceRef, extract
from ume_retrieval.tcot.grammar import parse

logger = logging.getLogger(__name__)
dispatcher = get_dispatcher(__name__)

PICTURE_PIXELS: Final = 768 * 768
"""Default for the most pixels of a picture that a language model gets."""

LOSSLESS_PIXELS: Final = 256 * 256
"""Pictures of at most this many pixels are encoded as PNG, larger ones as JPEG."""


class EvidenceNode(Node):
    """A node with pictures cut out of its media.

    Attributes:
        pictures: Encoded pictures, each with its caption as `text`. Their bytes are not serialised.
    """

    pictures: list[MediaResource] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "EvidenceNode"

    def get_content_blocks(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> list[BaseContentBlock]:
        """Return metadata, text, then each caption with its picture."""
        blocks = self.get_metadata_content_blocks(metadata_mode)
        if self.text_resource and self.text_resource.text:
            blocks.append(TextBlock(text=self.text_resource.text))
        for picture in self.pictures:
            blocks.append(TextBlock(text=picture.text or ""))
            blocks.append(ImageBlock(image=picture.data, image_mimetype=picture.mimetype))
        return blocks


class EvidencePictures(BaseNodePostprocessor):
    """Replaces images, pages and videos by crops and key frames.

    The evidence of the T-CoT is cut out of the media as the Reasoner saw them. Media without evidence are shown as one
    small picture, videos as evenly spaced frames. Text nodes are unchanged. Media that can no longer be read are noted
    in the node, logged, and reported in a `LeftOutEvent`; files themselves are never passed on.

    Attributes:
        embedding: Its budget determines how videos are sampled, its limits what is decoded.
        limit: Most pictures per node.
        max_pixels: Most pixels per picture.
        without_evidence: What to show of media without evidence: the "whole" at small size, or "nothing".
    """

    embedding: UmeEmbedding = Field(exclude=True)
    limit: int = Field(default=4, ge=1)
    max_pixels: int = Field(default=PICTURE_PIXELS, ge=32 * 32)
    without_evidence: Literal["whole", "nothing"] = "whole"

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "EvidencePictures"

    def _postprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,  # noqa: ARG002  # LlamaIndex's signature
    ) -> list[NodeWithScore]:
        failures: list[Failure] = []
        shown = [
            one if is_text(one.node) else NodeWithScore(node=self._shown(one, index, failures), score=one.score)
            for index, one in enumerate(nodes)
        ]
        if failures:
            dispatcher.event(LeftOutEvent.of(failures))
        return shown

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await self.embedding.workers.run(self._postprocess_nodes, nodes, query_bundle)

    def _shown(self, one: NodeWithScore, index: int, failures: list[Failure]) -> EvidenceNode:
        node = one.node
        words = node.get_content(metadata_mode=MetadataMode.NONE)
        pictures: list[MediaResource] = []
        try:
            pictures = [
                MediaResource(data=data, mimetype=mimetype, text=caption)
                for caption, picture in self._pictures(one)
                for data, mimetype in [_encoded(picture, self.max_pixels)]
            ]
        except UmeError as error:
            failures.append(Failure.of(error, index=index, source=label_of(node)))
            logger.warning("%s cannot be shown: %s (%s)", label_of(node), error.message, error.hint)
            words = f"{words}\n(its pictures cannot be read any more)".strip()
        return EvidenceNode(
            id_=node.node_id,
            text_resource=MediaResource(text=words),
            metadata=node.metadata,
            excluded_embed_metadata_keys=node.excluded_embed_metadata_keys,
            excluded_llm_metadata_keys=node.excluded_llm_metadata_keys,
            relationships=node.relationships,
            pictures=pictures,
        )

    def _pictures(self, one: NodeWithScore) -> Iterator[tuple[str, PIL.Image.Image]]:
        """Yield pictures with their captions."""
        embedder = self.embedding.embedder
        spec = embedder.reasoner.spec if embedder.reasoner else embedder.embedder.spec
        item = load(item_of_node(one.node), spec.budget, embedder.limits, allow_remote=embedder.allow_remote)
        tcot = parse(
            str(one.node.metadata.get("tcot", "")),
            images=len(item.images),
            frames=sum(len(video.images) for video in item.videos) or None,
        )
        evidence = extract(tcot, item, self.limit)
        if evidence.images:
            for ref, picture in zip(evidence.refs, evidence.images, strict=True):
                yield _caption(ref), picture
        elif self.without_evidence == "whole":
            yield from _whole(item, self.limit)


def _whole(item: LoadedItem, limit: int) -> Iterator[tuple[str, PIL.Image.Image]]:
    for image in item.images[:limit]:
        yield "the whole picture:", image
    for video in item.videos[:limit]:
        share = max(1, limit // len(item.videos))
        step = max(1, math.ceil(len(video.images) / share))
        for time_s, frame in list(zip(video.timestamps, video.images, strict=True))[::step]:
            yield f"frame at {time_s:.1f} s:", frame


def _caption(ref: EvidenceRef) -> str:
    if ref.time_s is not None:
        return f"frame at {ref.time_s:.1f} s:"
    box = ref.box
    place = "" if box is None else f" [{box.x1}, {box.y1}, {box.x2}, {box.y2}] of 1000"
    return f"part{place} of the picture:"


def _encoded(picture: PIL.Image.Image, max_pixels: int) -> tuple[bytes, str]:
    if picture.width * picture.height > max_pixels:
        shrink = math.sqrt(max_pixels / (picture.width * picture.height))
        size: Sequence[int] = [max(1, math.floor(side * shrink)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), PIL.Image.Resampling.LANCZOS)
    lossless = picture.width * picture.height <= LOSSLESS_PIXELS
    encoded = io.BytesIO()
    picture.save(encoded, **({"format": "PNG"} if lossless else {"format": "JPEG", "quality": 90}))
    return encoded.getvalue(), "image/png" if lossless else "image/jpeg"
