"""`ReasoningEmbedder`: items in, vectors out, with a Reasoner's evidence in between (arXiv 2602.13823)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, Unpack, get_args, overload

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import Prompts
from ume_retrieval.engines.base import Embedder, Generation, Reasoner, Sampling, tcot_sampling
from ume_retrieval.engines.load import LoadOptions, choose_engine
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner, with_prompts
from ume_retrieval.engines.server.options import ServerOptions
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Modality, Side
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.media.remote.allowlist import AllowedHosts
from ume_retrieval.pipeline.asking import CallMemory
from ume_retrieval.pipeline.async_encode import AsyncEncoding, cancellation
from ume_retrieval.pipeline.encode_options import CorpusOptions, Inputs, QueryOptions, ReasoningMode, Vectors
from ume_retrieval.pipeline.loading import Input, Intake, as_sequence
from ume_retrieval.pipeline.progress import Ledger, Progress
from ume_retrieval.pipeline.run import EncodeStream, Flow, stream_inputs
from ume_retrieval.pipeline.stages import Embedding, Reasoning
from ume_retrieval.pipeline.trace_cache import TraceCache, default_cache_path
from ume_retrieval.profiles import Profile
from ume_retrieval.results import EncodeResult, PipelineInfo, Trace, TraceResult
from ume_retrieval.vectors import Precision, check_precision, check_truncation, cosine, quantize, truncate

CHUNK_ITEMS: Final = 256
"""Enough that engines find company for every input, little enough that all stages of a corpus soon have work."""

NO_REASONER: Final = "load one with from_pretrained(..., reasoner='qwen3-vl-2b')"


class ReasoningEmbedder(AsyncEncoding):
    """A Reasoner laid over an Embedder.

    Each item passes four stages: its media are decoded; the Reasoner writes a T-CoT, unless the cache has it; the
    regions or frames that the T-CoT names are cut out; the Embedder reads item, T-CoT and evidence. Inputs go in
    bounded chunks, so memory for pixels does not grow with their number; stages of different chunks run side by side.
    Calls from several threads are safe; each engine serves one at a time.

    Args:
        embedder: Makes the vectors.
        reasoner: Writes the T-CoTs, or None for direct embeddings only.
        cache: Where T-CoTs are kept, or None to keep the last 16,384 of them for one call only.
        limits: Limits on what is decoded.
        allow_remote: Hosts that addresses in items may be fetched from, such as "images.example.org"; see `load`.
        sampling: How the Reasoner decodes; by default greedily, up to the `max_tokens` of its own description.
        chunk_items: Most inputs that go through a stage together, >= 1. Finished traces are kept after each, or every
            second where the engine hands them out one by one.

    Example:
        >>> from ume_retrieval.testing import FakeReasoner, HashEmbedder
        >>> embedder = ReasoningEmbedder(HashEmbedder(), FakeReasoner())
        >>> corpus = embedder.encode_corpus(["a red circle on grass", "the last train home"])
        >>> query = embedder.encode_query("red circle")
        >>> corpus.shape, embedder.similarity(query, corpus).argmax().item()
        ((2, 64), 0)
    """

    def __init__(
        self,
        embedder: Embedder,
        reasoner: Reasoner | None = None,
        *,
        cache: TraceCache | None = None,
        limits: Limits = DEFAULT_LIMITS,
        allow_remote: Sequence[str] = (),
        sampling: Sampling | None = None,
        chunk_items: int = CHUNK_ITEMS,
    ) -> None:
        if chunk_items < 1:
            raise InputError(f"chunk_items is {chunk_items}", hint="use 1 or more")
        AllowedHosts.of(allow_remote)  # what cannot be understood shows at once
        self.embedder = embedder
        self.reasoner = reasoner
        self.cache = cache
        self.limits = limits
        self.allow_remote = allow_remote
        self.sampling = sampling
        self.chunk_items = chunk_items
        self._reasoner_lock = threading.Lock()
        self._embedder_lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "ume-tiny",
        *,
        reasoner: str | Path | Reasoner | None = "auto",
        profile: str | Profile | None = None,
        engine: str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        cache: TraceCache | str | Path | None = "auto",
        limits: Limits = DEFAULT_LIMITS,
        allow_remote: Sequence[str] = (),
        sampling: Sampling | None = None,
        chunk_items: int = CHUNK_ITEMS,
        trust_remote_code: bool = False,
        server: ServerOptions | None = None,
        prompts: Prompts | str | Path | None = None,
    ) -> ReasoningEmbedder:
        """Load an Embedder and the Reasoner that goes with it.

        Args:
            name: Preset (`registry.presets()`), hub id or folder of the Embedder, or a folder that holds a pair.
            reasoner: The same for the Reasoner, or a loaded one. "auto" takes the one that preset or pair names, else
                none. None loads none: only `reasoning="never"` works then.
            profile: How items are written for it, a name of `profiles.PROFILES` or a value; None as its family says.
            engine: What runs the models; "auto" or a name in `engines.ENGINES`.
            device: "auto" (a GPU where the models fit it), "cpu", "cuda"; "cuda:all" or "cuda:0,cuda:1" for replicas.
            dtype: "auto" (bfloat16 on a GPU, else float32), "float32", "bfloat16", "float16".
            cache: Where T-CoTs are kept: "auto" is `cache.default_cache_path()`; else a path, a cache, or None.
            limits: Limits on what is decoded.
            allow_remote: Hosts that addresses in items may be fetched from, such as "images.example.org"; see `load`.
            sampling: How the Reasoner decodes; greedily by default.
            chunk_items: Most inputs that go through a stage together.
            trust_remote_code: Whether code of a sentence-transformers checkpoint may run.
            server: Where the models of `engine="server"` are; by default as the environment says, see `ServerOptions`.
            prompts: What the Reasoner is asked, in place of its own prompts; a path is read by `Prompts.from_file`.

        Raises:
            ModelError: When a name means nothing, or a model does not fit the device or cannot be loaded.
            InputError: When the engine does not exist, the family has no such profile, or the prompts cannot be used.
            CacheError: When the cache cannot be used.
        """
        chosen = choose_engine(engine)
        options = LoadOptions(device, dtype, trust_remote_code, server, profile)
        resolved = resolve_embedder(str(name))
        reasoner = resolved.reasoner if reasoner == "auto" else reasoner
        # Every name is understood before a model is loaded: a typing error shows at once.
        wanted = resolve_reasoner(str(reasoner)) if isinstance(reasoner, (str, Path)) else None
        given = None if isinstance(reasoner, (str, Path)) else reasoner
        wanted = wanted if prompts is None else with_prompts(wanted, prompts)
        options = chosen.place([resolved, *([wanted] if wanted else [])], options)
        cache = default_cache_path() if cache == "auto" else cache
        return cls(
            chosen.load_embedder(resolved, options),
            chosen.load_reasoner(wanted, options) if wanted else given,
            cache=TraceCache(cache) if isinstance(cache, (str, Path)) else cache,
            limits=limits,
            allow_remote=allow_remote,
            sampling=sampling,
            chunk_items=chunk_items,
        )

    @property
    def dimension(self) -> int:
        """Length of a vector before `truncate_dim`."""
        return self.embedder.dimension

    @property
    def info(self) -> PipelineInfo:
        """Which models and prompts make the vectors."""
        asked = (None, None) if self.reasoner is None else (self.reasoner.info, self.reasoner.spec.prompts.version)
        return PipelineInfo(self.embedder.info, *asked)

    @overload
    def encode_query(
        self, inputs: Inputs, *, return_traces: Literal[False] = False, **options: Unpack[QueryOptions]
    ) -> Vectors: ...
    @overload
    def encode_query(
        self, inputs: Inputs, *, return_traces: Literal[True], **options: Unpack[QueryOptions]
    ) -> EncodeResult: ...
    def encode_query(
        self,
        inputs: Inputs,
        *,
        return_traces: bool = False,
        reasoning: ReasoningMode = "always",
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        strict: bool = True,
        on_progress: Progress | None = None,
        target: Modality | None = None,
    ) -> Vectors | EncodeResult:
        """Encode what is searched with.

        Args:
            inputs: One or several: text, PIL images, pages, clips, frames, `Item`s. A `str` is text, never a path.
            return_traces: Return an `EncodeResult` instead of the bare vectors.
            reasoning: "always" asks the Reasoner for each item that the cache does not know; "never" embeds directly.
            truncate_dim: Keep the first components only and normalise again, 1..`dimension`.
            precision: How vectors are stored, see `vectors.quantize`.
            strict: Raise the first failure; a note on it names the input. False goes on: failed rows are NaN (0 in
                integer precisions) and are named in `EncodeResult.failures`.
            on_progress: Called with (inputs done, inputs in all, stage) after each chunk of each stage, from threads of
                the stages, one call at a time.
            target: What the query looks for, when that is known; a text query for a video has a prompt of its own.

        Returns:
            Shape (n, dim), float32 rows of length 1 in input order, unless `precision` says otherwise; (dim,) for a
            single input.

        Raises:
            InputError: When an argument or, if strict, an item cannot be used.
            MediaError: If strict, when an item's media cannot be decoded; `ModelError` when a model refused it.
            ReasoningError: If strict, when the Reasoner wrote no usable trace. Nothing falls back to direct embedding.
            CacheError: When the cache cannot be used.
        """
        result = self._encode(
            inputs,
            "query",
            target,
            mode=reasoning,
            truncate_dim=truncate_dim,
            precision=precision,
            strict=strict,
            on_progress=on_progress,
        )
        return result if return_traces else result.vectors

    @overload
    def encode_corpus(
        self, inputs: Inputs, *, return_traces: Literal[False] = False, **options: Unpack[CorpusOptions]
    ) -> Vectors: ...
    @overload
    def encode_corpus(
        self, inputs: Inputs, *, return_traces: Literal[True], **options: Unpack[CorpusOptions]
    ) -> EncodeResult: ...
    def encode_corpus(
        self,
        inputs: Inputs,
        *,
        return_traces: bool = False,
        reasoning: ReasoningMode = "always",
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        strict: bool = True,
        on_progress: Progress | None = None,
    ) -> Vectors | EncodeResult:
        """Encode what is to be found. Arguments, result and errors are those of `encode_query`, without `target`."""
        result = self._encode(
            inputs,
            "corpus",
            None,
            mode=reasoning,
            truncate_dim=truncate_dim,
            precision=precision,
            strict=strict,
            on_progress=on_progress,
        )
        return result if return_traces else result.vectors

    encode_document = encode_corpus

    def stream_corpus(
        self,
        inputs: Input | Iterable[Input],
        *,
        reasoning: ReasoningMode = "always",
        total: int | None = None,
        chunk_items: int | None = None,
        on_progress: Progress | None = None,
    ) -> EncodeStream:
        """Encode a corpus of any length while what comes out is used, for instance written to a database.

        Decoding, reasoning and embedding go on side by side, each a bounded stretch ahead of the next: memory does not
        grow with the corpus, and the slowest stage sets the pace. Nothing runs before the first result is asked for.

        Args:
            inputs: As in `encode_query`; drawn as they are needed, in another thread.
            reasoning: As in `encode_query`.
            total: How many inputs there are, for progress, when that is known.
            chunk_items: Most inputs that go through a stage together; by default as this embedder was made.
            on_progress: As in `encode_query`.

        Returns:
            One `Encoded` an input, in order; one that cannot be encoded says why and never stops the others.

        Raises:
            InputError: When `inputs` or `reasoning` cannot be used.

        Example:
            >>> from ume_retrieval.testing import FakeReasoner, HashEmbedder
            >>> embedder = ReasoningEmbedder(HashEmbedder(), FakeReasoner())
            >>> with embedder.stream_corpus(f"thing {n}" for n in range(1000)) as stream:
            ...     sum(one.vector is not None for one in stream), stream.usage.embedder_calls
            (1000, 1000)
        """
        reasoner = self._reasoning_of(reasoning, "corpus", None)
        ledger = Ledger(total, strict=False, on_progress=on_progress)
        intake = replace(self._intake(reasoner), chunk_items=chunk_items or self.chunk_items)
        flow = Flow(intake, reasoner, Embedding(self.embedder, self._embedder_lock, "corpus"))
        return EncodeStream(flow.run(stream_inputs(inputs), ledger), ledger)

    def trace(
        self,
        inputs: Inputs,
        side: Side,
        *,
        target: Modality | None = None,
        strict: bool = True,
        on_progress: Progress | None = None,
    ) -> TraceResult:
        """Reason without embedding, for instance to fill the cache.

        Args:
            inputs: As in `encode_query`.
            side: Which prompts are used.
            target: As in `encode_query`.
            strict: Raise the first failure; False goes on and names it in `failures`.
            on_progress: As in `encode_query`.

        Returns:
            Traces in input order, also for a single input.

        Raises:
            UmeError: As `encode_query` does.
        """
        items, _ = as_sequence(inputs)
        reasoning = self._reasoning(side, target)
        ledger = Ledger(len(items), strict=strict, on_progress=on_progress)
        traces: list[Trace | None] = [None] * len(items)
        for chunk in Flow(self._intake(reasoning), reasoning, None).run(items, ledger):
            for one in chunk.items:
                traces[one.loaded.index] = one.trace
        return TraceResult(tuple(traces), ledger.failures_in_order(), ledger.usage())

    def ask(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        """Let the Reasoner answer chats of your own, one call at a time with what else it is asked here.

        Raises:
            InputError: When there is no Reasoner; `ModelError` when it refuses a chat.
        """
        if self.reasoner is None:
            raise InputError("questions need a Reasoner, and this embedder has none", hint=NO_REASONER)
        with self._reasoner_lock:
            return self.reasoner.generate(chats, sampling)

    def similarity(self, a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Cosine similarity of every row of `a` with every row of `b`, shape (n, m); see `vectors.cosine`."""
        return cosine(a, b)

    def _encode(
        self,
        inputs: Inputs,
        side: Side,
        target: Modality | None,
        *,
        mode: ReasoningMode,
        truncate_dim: int | None,
        precision: Precision,
        strict: bool,
        on_progress: Progress | None,
    ) -> EncodeResult:
        reasoning = self._reasoning_of(mode, side, target)
        check_precision(precision)
        if truncate_dim is not None:
            check_truncation(truncate_dim, self.dimension)
        items, single = as_sequence(inputs)
        flow = Flow(self._intake(reasoning), reasoning, Embedding(self.embedder, self._embedder_lock, side))
        ledger = Ledger(len(items), strict=strict, on_progress=on_progress, stopped=cancellation())
        vectors = np.full((len(items), self.dimension), np.nan, dtype=np.float32)
        traces: list[Trace | None] = [None] * len(items)
        for chunk in flow.run(items, ledger):
            for one, vector in chunk.items:
                vectors[one.loaded.index] = vector
                traces[one.loaded.index] = one.trace
        stored = quantize(vectors if truncate_dim is None else truncate(vectors, truncate_dim), precision)
        return EncodeResult(stored[0] if single else stored, tuple(traces), ledger.failures_in_order(), ledger.usage())

    def _intake(self, reasoning: Reasoning | None) -> Intake:
        return Intake(
            reasoner_budget=reasoning.reasoner.spec.budget if reasoning else None,
            embedder_budget=self.embedder.spec.budget,
            limits=self.limits,
            allow_remote=self.allow_remote,
            chunk_items=self.chunk_items,
        )

    def _reasoning_of(self, mode: ReasoningMode, side: Side, target: Modality | None) -> Reasoning | None:
        if mode not in get_args(ReasoningMode):
            raise InputError(f"unknown reasoning {mode!r}", hint="use 'always' or 'never'")
        return self._reasoning(side, target) if mode == "always" else None

    def _reasoning(self, side: Side, target: Modality | None) -> Reasoning:
        if self.reasoner is None:
            raise InputError(
                "reasoning needs a Reasoner, and this embedder has none",
                hint=f"{NO_REASONER}, or use reasoning='never'",
            )
        return Reasoning(
            reasoner=self.reasoner,
            sampling=self.sampling or tcot_sampling(self.reasoner),
            traces=self.cache if self.cache is not None else CallMemory(),
            embedder=self.embedder.spec,
            side=side,
            target=target,
            lock=self._reasoner_lock,
        )
