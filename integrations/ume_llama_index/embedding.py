"""`UmeEmbedding`: embed text, images and videos, as queries and as documents, in LlamaIndex."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.bridge.pydantic import ConfigDict, PrivateAttr, field_validator
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import BaseNode, ImageType
from llama_index.core.utils import get_tqdm_iterable
from llama_index_instrumentation import get_dispatcher

from ume_llama_index.events import LeftOutEvent
from ume_llama_index.inputs import image_item, image_of, name_of
from ume_llama_index.nodes import MEDIA_MARK, item_of_node, label_of, note_reasoning
from ume_llama_index.workers import DEFAULT_WORKERS, Run, Workers, call_inline
from ume_qdrant.indexing.enrich import reasoned_update
from ume_qdrant.reports import error_of
from ume_qdrant.stores.async_store import run_inline
from ume_retrieval.errors import Failure, IncompatibleModel, InputError, UmeError
from ume_retrieval.inputs import Item, Modality, Side, VideoInput
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.encode_options import ReasoningMode
from ume_retrieval.pipeline.trace_cache import TraceCache
from ume_retrieval.results import EncodeResult

logger = logging.getLogger(__name__)
dispatcher = get_dispatcher(__name__)
Placed: TypeAlias = tuple[int, BaseNode]
"""A node with its position in the input."""


class UmeEmbedding(MultiModalEmbedding):
    """A `ReasoningEmbedder` as a LlamaIndex embedding.

    Queries use `encode_query`, documents `encode_corpus`. As a transformation (in an `IngestionPipeline`, or called
    with nodes) it embeds each node by its image, video or text, and adds the T-CoT to its metadata.

    LlamaIndex's `embeddings_cache` is refused, because its key is only the text: a query would get a document's vector.
    T-CoTs, the expensive part, are cached by `cache`.

    Args:
        model_name: Preset, hub id or folder of the Embedder.
        embedder: Loaded models, instead of names.
        reasoner: Preset, hub id or folder of the Reasoner; "auto" uses the Embedder's partner.
        reasoning: "always" or "never"; None reasons if there is a Reasoner.
        target: Modality that queries search for, if known.
        truncate_dim: Keep only the first components.
        strict: Raise if a node cannot be embedded; otherwise it is left out, logged, and listed in a `LeftOutEvent`.
        cache: Where T-CoTs are cached: "auto", a path, a `TraceCache`, or None.
        engine: Engine of the models.
        device: "auto", "cpu", "cuda", …
        dtype: "auto", "float32", "bfloat16", "float16".
        by_name: Whether the models can be loaded by name; set by serialised instances. An instance made with `embedder`
            can be neither deserialised nor sent to another process.
        weights: Raise if the loaded weights differ from these; set by serialised instances.
        **kwargs: `embed_batch_size`, `num_workers` (threads for async calls, 2 by default; more if the models are on a
            server), `callback_manager` and other arguments of LlamaIndex's embeddings.

    Raises:
        InputError: If an `embeddings_cache` is given, or reasoning without a Reasoner.
        ModelError: If a model cannot be loaded.

    Example:
        >>> from ume_retrieval.testing import fake_embedder
        >>> embedding = UmeEmbedding(embedder=fake_embedder())
        >>> len(embedding.get_query_embedding("red circle")), embedding.reasoning
        (64, 'always')
    """

    model_config = ConfigDict(validate_assignment=True)

    reasoner: str | None = None
    reasoning: ReasoningMode = "always"
    target: Modality | None = None
    truncate_dim: int | None = None
    strict: bool = False
    engine: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    weights: str = ""
    by_name: bool = True

    _embedder: ReasoningEmbedder = PrivateAttr()
    _workers: Workers = PrivateAttr()

    def __init__(
        self,
        model_name: str = "ume-tiny",
        *,
        embedder: ReasoningEmbedder | None = None,
        reasoner: str | None = "auto",
        reasoning: ReasoningMode | None = None,
        cache: TraceCache | Path | Literal["auto"] | None = "auto",
        engine: str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        weights: str = "",
        by_name: bool = True,
        **kwargs: Any,
    ) -> None:
        _refuse_embeddings_cache(kwargs.get("embeddings_cache"))
        if embedder is None:
            if not by_name:
                raise _without_names(model_name)
            embedder = ReasoningEmbedder.from_pretrained(
                model_name, reasoner=reasoner, engine=engine, device=device, dtype=dtype, cache=cache
            )
        else:
            by_name = False
            model_name = embedder.info.embedder.name
            reasoner = embedder.info.reasoner.name if embedder.info.reasoner else None
        if reasoning == "always" and embedder.reasoner is None:
            raise InputError(f"{model_name} has no Reasoner", hint="name one with reasoner=…, or use reasoning='never'")
        loaded = _weights(embedder)
        if weights and weights != loaded:
            raise IncompatibleModel(
                f"these vectors were made with {weights}, and {model_name} is now {loaded}", hint="index again"
            )
        super().__init__(
            model_name=model_name,
            reasoner=reasoner,
            reasoning=reasoning or ("always" if embedder.reasoner else "never"),
            engine=engine,
            device=device,
            dtype=dtype,
            weights=loaded,
            by_name=by_name,
            **kwargs,
        )
        self._embedder = embedder
        self._workers = Workers(self.num_workers or DEFAULT_WORKERS)

    def __getstate__(self) -> dict[str, Any]:
        if not self.by_name:
            raise _without_names(self.model_name)
        return super().__getstate__()

    @field_validator("embeddings_cache", mode="before")
    @classmethod
    def _no_embeddings_cache(cls, value: Any) -> Any:
        _refuse_embeddings_cache(value)
        return value

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "UmeEmbedding"

    @property
    def embedder(self) -> ReasoningEmbedder:
        """The models."""
        return self._embedder

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.truncate_dim or self._embedder.dimension

    @property
    def workers(self) -> Workers:
        """The threads of async calls."""
        return self._workers

    def to_payload(self) -> dict[str, Any]:
        """Return names and settings of the models for events, without paths, keys or addresses."""
        info = self._embedder.info
        return {
            **super().to_payload(),
            "model_name": info.embedder.name,
            "reasoner": info.reasoner.name if info.reasoner else None,
            "reasoning": self.reasoning,
            "dimension": self.dimension,
        }

    def get_item_query_embedding(self, item: Item | str) -> Embedding:
        """Embed a query of text, images and videos, in any combination."""
        return run_inline(self._embed_query(item, call_inline))

    async def aget_item_query_embedding(self, item: Item | str) -> Embedding:
        """`get_item_query_embedding` without blocking the event loop."""
        return await self._embed_query(item, self._workers.run)

    async def _embed_query(self, item: Item | str, run: Run) -> Embedding:
        with self._event([name_of(item)]) as vectors:
            vectors.extend(_lists(await run(self._encode, [item], "query")))
        return vectors[0]

    def get_image_query_embedding(self, img_file_path: ImageType, text: str | None = None) -> Embedding:
        """Embed an image as a query, alone or with text."""
        return self.get_item_query_embedding(Item(text=text or None, images=(image_of(img_file_path),)))

    async def aget_image_query_embedding(self, img_file_path: ImageType, text: str | None = None) -> Embedding:
        """`get_image_query_embedding` without blocking the event loop."""
        return await self.aget_item_query_embedding(Item(text=text or None, images=(image_of(img_file_path),)))

    def get_item_embedding_batch(self, items: Sequence[Item | str], show_progress: bool = False) -> list[Embedding]:  # noqa: FBT001  # LlamaIndex's signature
        """Embed documents of text, images and videos, in any combination; one vector per item, in order."""
        return run_inline(self._embed_items(items, call_inline, show_progress=show_progress))

    async def aget_item_embedding_batch(
        self,
        items: Sequence[Item | str],
        show_progress: bool = False,  # noqa: FBT001  # LlamaIndex's signature
    ) -> list[Embedding]:
        """`get_item_embedding_batch` without blocking the event loop."""
        return await self._embed_items(items, self._workers.run, show_progress=show_progress)

    async def _embed_items(self, items: Sequence[Item | str], run: Run, *, show_progress: bool) -> list[Embedding]:
        found: list[Embedding] = []
        for batch in get_tqdm_iterable(list(self._batches(items)), show_progress, "Generating embeddings"):
            with self._event([name_of(item) for item in batch]) as vectors:
                vectors.extend(_lists(await run(self._encode, batch, "corpus")))
            found += vectors
        return found

    def get_video_embedding(self, video: VideoInput) -> Embedding:
        """Embed a video file, a segment of one, or frames, as a document."""
        return self.get_item_embedding_batch([Item(videos=(video,))])[0]

    async def aget_video_embedding(self, video: VideoInput) -> Embedding:
        """`get_video_embedding` without blocking the event loop."""
        return (await self.aget_item_embedding_batch([Item(videos=(video,))]))[0]

    def get_image_embedding(self, img_file_path: ImageType) -> Embedding:
        """Embed an image as a document."""
        return self.get_item_embedding_batch([image_item(img_file_path)])[0]

    async def aget_image_embedding(self, img_file_path: ImageType) -> Embedding:
        """`get_image_embedding` without blocking the event loop."""
        return (await self.aget_item_embedding_batch([image_item(img_file_path)]))[0]

    def get_image_embedding_batch(
        self,
        img_file_paths: list[ImageType],
        show_progress: bool = False,  # noqa: FBT001  # LlamaIndex's signature
    ) -> list[Embedding]:
        """Embed images as documents."""
        return self.get_item_embedding_batch([image_item(image) for image in img_file_paths], show_progress)

    async def aget_image_embedding_batch(
        self,
        img_file_paths: list[ImageType],
        show_progress: bool = False,  # noqa: FBT001  # LlamaIndex's signature
    ) -> list[Embedding]:
        """`get_image_embedding_batch` without blocking the event loop."""
        return await self.aget_item_embedding_batch([image_item(image) for image in img_file_paths], show_progress)

    def __call__(self, nodes: Sequence[BaseNode], **_: Any) -> Sequence[BaseNode]:
        """Embed nodes as documents; a node that cannot be embedded is left out and reported.

        Sets `embedding`. With reasoning, also sets the metadata `trace` (JSON text) and its provenance, hidden from
        embedding and from the language model.

        Raises:
            UmeError: If `strict`, the first failure.
        """
        return run_inline(self._embed_nodes(nodes, call_inline))

    async def acall(self, nodes: Sequence[BaseNode], **_: Any) -> Sequence[BaseNode]:
        """`__call__` without blocking the event loop."""
        return await self._embed_nodes(nodes, self._workers.run)

    async def _embed_nodes(self, nodes: Sequence[BaseNode], run: Run) -> list[BaseNode]:
        done: list[BaseNode] = []
        failures: list[Failure] = []
        for batch in self._batches(list(enumerate(nodes))):
            items, kept = self._readable(batch, failures)
            with self._event([label_of(node) for _, node in kept]) as vectors:
                result = await run(self._encode_nodes, items)
                done += self._settle(kept, result, failures, vectors)
        return self._report(done, failures)

    def _readable(self, batch: Sequence[Placed], failures: list[Failure]) -> tuple[list[Item], list[Placed]]:
        items: list[Item] = []
        kept: list[Placed] = []
        for index, node in batch:
            try:
                items.append(item_of_node(node))
                kept.append((index, node))
            except UmeError as error:
                failures.append(Failure.of(error, index=index, source=label_of(node)))
        return items, kept

    def _encode_nodes(self, items: Sequence[Item]) -> EncodeResult:
        return self._embedder.encode_corpus(
            items, reasoning=self.reasoning, truncate_dim=self.truncate_dim, strict=False, return_traces=True
        )

    def _settle(
        self, kept: Sequence[Placed], result: EncodeResult, failures: list[Failure], vectors: list[Embedding]
    ) -> list[BaseNode]:
        failed = {failure.index: failure for failure in result.failures}
        for i, failure in failed.items():
            index, node = kept[i]
            failures.append(replace(failure, index=index, source=label_of(node)))
        done = [(node, i) for i, (_, node) in enumerate(kept) if i not in failed]
        for node, i in done:
            node.embedding = np.asarray(result.vectors[i], dtype=np.float32).tolist()
            vectors.append(node.embedding)
            trace = result.traces[i]
            if trace is not None:
                update = reasoned_update("", np.empty(0, dtype=np.float32), trace, self._embedder.info)
                note_reasoning(node, update.payload)
        return [node for node, _ in done]

    def _report(self, done: list[BaseNode], failures: list[Failure]) -> list[BaseNode]:
        if failures:
            failures.sort(key=lambda failure: failure.index)
            dispatcher.event(LeftOutEvent.of(failures))
            if self.strict:
                raise error_of(failures[0])
            for failure in failures:
                logger.warning("%s left out: %s (%s)", failure.source, failure.message, failure.hint)
        return done

    def _get_query_embedding(self, query: str) -> Embedding:
        return _lists(self._encode([query], "query"))[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await self._workers.run(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await self._workers.run(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        for text in texts:
            if text.startswith(MEDIA_MARK):
                raise InputError(
                    f"{text.removeprefix(MEDIA_MARK)} would be embedded by its name instead of its pixels",
                    hint="embed media nodes by calling the embedding, embedding(nodes), or in an IngestionPipeline",
                )
        return _lists(self._encode(texts, "corpus"))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self._workers.run(self._get_text_embeddings, texts)

    def _get_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return _lists(self._encode([image_item(img_file_path)], "corpus"))[0]

    async def _aget_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return await self._workers.run(self._get_image_embedding, img_file_path)

    def _encode(self, inputs: Sequence[Item | str], side: Side) -> np.ndarray[Any, Any]:
        reasoning, dim = self.reasoning, self.truncate_dim
        if side == "query":
            return self._embedder.encode_query(list(inputs), target=self.target, reasoning=reasoning, truncate_dim=dim)
        return self._embedder.encode_corpus(list(inputs), reasoning=reasoning, truncate_dim=dim)

    def _batches(self, rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
        return (rows[start : start + self.embed_batch_size] for start in range(0, len(rows), self.embed_batch_size))

    @contextmanager
    def _event(self, chunks: list[str]) -> Iterator[list[Embedding]]:
        """Send both kinds of LlamaIndex's embedding events around one batch; the block appends its vectors."""
        vectors: list[Embedding] = []
        said = self.to_payload()
        dispatcher.event(EmbeddingStartEvent(model_dict=said))
        with self.callback_manager.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: said}) as event:
            yield vectors
            event.on_end(payload={EventPayload.CHUNKS: chunks, EventPayload.EMBEDDINGS: vectors})
        dispatcher.event(EmbeddingEndEvent(chunks=chunks, embeddings=vectors))


def _weights(embedder: ReasoningEmbedder) -> str:
    info = embedder.info
    made = f"{info.embedder.name}@{info.embedder.revision}"
    reasoner = info.reasoner
    return f"{made} + {reasoner.name}@{reasoner.revision} prompts {info.prompt_version}" if reasoner else made


def _lists(vectors: np.ndarray[Any, Any]) -> list[Embedding]:
    return cast("list[Embedding]", vectors.astype(np.float32).tolist())


def _refuse_embeddings_cache(value: Any) -> None:
    if value is not None:
        raise InputError(
            "embeddings_cache gives a query the vector of a document with the same words",
            hint="leave it out and pass cache=…: ume_retrieval.TraceCache stores the T-CoTs by content and side",
        )


def _without_names(model: str) -> InputError:
    return InputError(
        f"this embedding was made with {model} in hand, so no name brings its models back",
        hint="make it with names, as in UmeEmbedding('ume-tiny'), to store it or to send it to another process",
    )
