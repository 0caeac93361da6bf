"""`ReasoningEmbedder`: items in, vectors out, with a Reasoner's evidence in between (arXiv 2602.13823)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
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
from ume_retrieval.pipeline.batching import DEFAULT_BATCHING, Batching, Lanes, coalesced
from ume_retrieval.pipeline.encode_options import (
    CorpusOptions,
    EncodeOptions,
    EncodeProgress,
    Inputs,
    QueryOptions,
    ReasoningMode,
    Vectors,
)
from ume_retrieval.pipeline.loading import CHUNK_ITEMS, Input, ItemLoader, as_sequence
from ume_retrieval.pipeline.reasoning import ReasonStage
from ume_retrieval.pipeline.run import EncodeStream, run_side_by_side, stream_inputs
from ume_retrieval.pipeline.spare_traces import LastSpareable, open_cache
from ume_retrieval.pipeline.stages import Call, Chunk, EmbedStage, Failures, StageRun, as_listener, run_in_turn
from ume_retrieval.pipeline.trace_cache import InMemoryTraceCache, TraceCache, default_cache_path
from ume_retrieval.profiles import Profile
from ume_retrieval.results import EncodeResult, PipelineInfo, Trace, TraceResult
from ume_retrieval.util.threads import awaitable, fork_safe_lock
from ume_retrieval.vectors import cosine

NO_REASONER: Final = "load one with from_pretrained(..., reasoner='qwen3-vl-2b')"


class ReasoningEmbedder:
    """Encodes items as vectors, with or without the reasoning of a Reasoner.

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
        batching: How concurrent `aencode_*` calls are put together.

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
        batching: Batching = DEFAULT_BATCHING,
    ) -> None:
        if chunk_items < 1:
            raise InputError(f"chunk_items is {chunk_items}", hint="use 1 or more")
        AllowedHosts.of(allow_remote)  # raises at once if a host is malformed
        self.embedder = embedder
        self.reasoner = reasoner
        self.cache = cache
        self.limits = limits
        self.allow_remote = allow_remote
        self.sampling = sampling
        self.chunk_items = chunk_items
        self.batching = batching
        self._lanes = Lanes()
        self._spareable = LastSpareable()
        self.reasoner_lock = fork_safe_lock()
        self._embedder_lock = fork_safe_lock()

    def __getstate__(self) -> dict[str, object]:
        """Return everything but the locks, which a copy has of its own; whether engines can be copied, they know."""
        return {name: value for name, value in vars(self).items() if not name.endswith("_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, reasoner_lock=fork_safe_lock(), _embedder_lock=fork_safe_lock())

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
        batching: Batching = DEFAULT_BATCHING,
        trust_remote_code: bool = False,
        server: ServerOptions | None = None,
        prompts: Prompts | str | Path | None = None,
    ) -> ReasoningEmbedder:
        """Load an Embedder and its Reasoner.

        Args:
            name: Preset (`registry.presets()`), hub id or folder of the Embedder, or a folder that holds a pair.
            reasoner: The same for the Reasoner, or a loaded one. "auto" takes the one that preset or pair names, else
                none. None loads none: only `reasoning="never"` works then.
            profile: How items are written for it, a name of `profiles.PROFILES` or a value; None as its family says.
            engine: What runs the models; "auto" or a name in `engines.ENGINES`.
            device: "auto" (a GPU where the models fit it), "cpu", "cuda"; "cuda:all" or "cuda:0,cuda:1" for replicas.
            dtype: "auto" (bfloat16 on a GPU, else float32), "float32", "bfloat16", "float16".
            cache: Where T-CoTs are kept: "auto" is `cache.default_cache_path()`; else a path, a cache, or None. A file
                that is damaged or cannot be written is left alone: after a warning, T-CoTs are kept in memory.
            limits: Limits on what is decoded.
            allow_remote: Hosts that addresses in items may be fetched from, such as "images.example.org"; see `load`.
            sampling: How the Reasoner decodes; greedily by default.
            chunk_items: Most inputs that go through a stage together.
            batching: How concurrent `aencode_*` calls are put together.
            trust_remote_code: Whether code of a sentence-transformers checkpoint may run.
            server: Where the models of `engine="server"` are; by default as the environment says, see `ServerOptions`.
            prompts: Prompts in place of the Reasoner's own; a path is read by `Prompts.from_file`.

        Raises:
            ModelError: When a name means nothing, or a model does not fit the device or cannot be loaded.
            InputError: When the engine does not exist, the family lacks the profile, or the prompts cannot be used.
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
            cache=open_cache(cache) if isinstance(cache, (str, Path)) else cache,
            limits=limits,
            allow_remote=allow_remote,
            sampling=sampling,
            chunk_items=chunk_items,
            batching=batching,
        )

    @property
    def dimension(self) -> int:
        """Length of a vector before `truncate_dim`."""
        return self.embedder.dimension

    @property
    def info(self) -> PipelineInfo:
        """Models and prompts that make the vectors."""
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
        self, inputs: Inputs, *, return_traces: bool = False, **options: Unpack[QueryOptions]
    ) -> Vectors | EncodeResult:
        """Encode queries.

        Args:
            inputs: One or several: text, PIL images, pages, clips, frames, `Item`s. A `str` is text, never a path.
            return_traces: Return an `EncodeResult` instead of the bare vectors.
            options: See `EncodeOptions`: `reasoning`, `truncate_dim`, `precision`, `strict`, `on_progress`, `stopped`
                and `target`.

        Returns:
            Shape (n, dim), float32 rows of length 1 in input order, unless `precision` says otherwise; (dim,) for a
            single input.

        Raises:
            InputError: When an argument or, if strict, an item cannot be used.
            MediaError: If strict, when an item's media cannot be decoded; `ModelError` when a model refused it.
            ReasoningError: If strict, when the Reasoner wrote no usable trace. Nothing falls back to direct embedding.
            Stopped: When the call is cancelled.
        """
        result = self._encode(inputs, "query", EncodeOptions(**options))
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
        self, inputs: Inputs, *, return_traces: bool = False, **options: Unpack[CorpusOptions]
    ) -> Vectors | EncodeResult:
        """Encode a corpus. Arguments, result and errors are those of `encode_query`, without `target`."""
        result = self._encode(inputs, "corpus", EncodeOptions(**options))
        return result if return_traces else result.vectors

    encode_document = encode_corpus
    aencode_query = coalesced("query")(encode_query)
    aencode_corpus = coalesced("corpus")(encode_corpus)
    aencode_document = aencode_corpus

    def stream_corpus(
        self,
        inputs: Input | Iterable[Input],
        *,
        reasoning: ReasoningMode = "always",
        total: int | None = None,
        chunk_items: int | None = None,
        on_progress: EncodeProgress | None = None,
    ) -> EncodeStream:
        """Encode a corpus of any length as a stream, so that results can be used (written to a database) meanwhile.

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
            >>> from ume_retrieval.testing import fake_embedder
            >>> embedder = fake_embedder()
            >>> with embedder.stream_corpus(f"thing {n}" for n in range(1000)) as stream:
            ...     sum(one.vector is not None for one in stream), stream.usage.embedder_calls
            (1000, 1000)
        """
        stages = self._stages(reasoning, "corpus", None)
        call = Call(Failures(strict=False), total, as_listener(on_progress))
        loader = replace(self._loader(stages), chunk_items=chunk_items or self.chunk_items)
        chunks = loader.chunks(stream_inputs(inputs), call)
        return EncodeStream(run_side_by_side(chunks, stages, call), call)

    def trace(
        self,
        inputs: Inputs,
        side: Side,
        *,
        target: Modality | None = None,
        strict: bool = True,
        on_progress: EncodeProgress | None = None,
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
        call = Call(Failures(strict), len(items), as_listener(on_progress))
        traces: list[Trace | None] = [None] * len(items)
        for chunk in self._run(items, [self._reason_stage(side, target)], call):
            for item in chunk.items:
                traces[item.index] = item.trace
        return TraceResult(tuple(traces), call.failures.in_order(), call.usage())

    def ask(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        """Let the Reasoner answer your own chats; calls to the Reasoner run one at a time.

        Raises:
            InputError: Without a Reasoner; `ModelError` when it refuses a chat.
        """
        if self.reasoner is None:
            raise InputError("questions need a Reasoner, and this embedder has none", hint=NO_REASONER)
        with self.reasoner_lock:
            return self.reasoner.generate(chats, sampling)

    def similarity(self, a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Cosine similarity of every row of `a` with every row of `b`, shape (n, m); see `vectors.cosine`."""
        return cosine(a, b)

    async def encode_together(self, inputs: Inputs, side: Side, options: EncodeOptions) -> EncodeResult:
        """Encode inputs with those of other calls, up to `batching.items`; errors are those of `encode_query`."""
        items, single = as_sequence(inputs)
        if options.on_progress is not None or not 0 < len(items) <= min(self.batching.items, self.chunk_items):
            alone = awaitable(lambda *, stopped: self._encode(inputs, side, replace(options, stopped=stopped)))
            return await alone(stopped=options.stopped)
        options.check(self.dimension)
        make = partial(self._stages, options.reasoning, side, options.target)
        encode = partial(self._lanes.encode, dimension=self.dimension, batching=self.batching)
        result = await encode(make, self._loader, items, options)
        return replace(result, vectors=options.stored(result.vectors, single=single))

    def _encode(self, inputs: Inputs, side: Side, options: EncodeOptions) -> EncodeResult:
        stages = self._stages(options.reasoning, side, options.target)
        plain = options.truncate_dim is None and options.precision == "float32"
        if not plain:
            options.check(self.dimension)
        items, single = as_sequence(inputs)
        call = Call(
            Failures(options.strict),
            len(items),
            options.on_progress and as_listener(options.on_progress),
            options.stopped or threading.Event(),
        )
        vectors = np.full((len(items), self.embedder.dimension), np.nan, dtype=np.float32)
        traces: list[Trace | None] = [None] * len(items)
        for chunk in self._run(items, stages, call):
            for item in chunk.items:
                vectors[item.index] = item.vector
                traces[item.index] = item.trace
        # What changes nothing is not called: a query passes few functions.
        kept = (vectors[0] if single else vectors) if plain else options.stored(vectors, single=single)
        return EncodeResult(kept, tuple(traces), call.failures.in_order(), call.usage(), tuple(call.warnings))

    def _run(self, items: Sequence[Input], stages: Sequence[StageRun], call: Call) -> Iterator[Chunk]:
        chunks = self._loader(stages).chunks(items, call)
        # A single chunk, such as a query, needs no threads: there is nothing to work on at the same time.
        run = run_in_turn if len(items) <= self.chunk_items else run_side_by_side
        return run(chunks, stages, call)

    def _loader(self, stages: Sequence[StageRun]) -> ItemLoader:
        reasons = isinstance(stages[0], ReasonStage)
        return ItemLoader(
            self.embedder.spec.budget,
            self.reasoner.spec.budget if self.reasoner and reasons else None,
            self.limits,
            self.allow_remote,
            self.chunk_items,
        )

    def _stages(self, mode: ReasoningMode, side: Side, target: Modality | None) -> list[StageRun]:
        if mode not in get_args(ReasoningMode):
            raise InputError(f"unknown reasoning {mode!r}", hint="use 'always' or 'never'")
        embed = EmbedStage(self.embedder, side, self._embedder_lock)
        return [embed] if mode == "never" else [self._reason_stage(side, target), embed]

    def _reason_stage(self, side: Side, target: Modality | None) -> ReasonStage:
        if self.reasoner is None:
            raise InputError(
                "reasoning needs a Reasoner, and this embedder has none",
                hint=f"{NO_REASONER}, or use reasoning='never'",
            )
        return ReasonStage(
            reasoner=self.reasoner,
            sampling=self.sampling or tcot_sampling(self.reasoner),
            traces=InMemoryTraceCache() if self.cache is None else self._spareable.of(self.cache),
            embedder=self.embedder.spec,
            side=side,
            target=target,
            lock=self.reasoner_lock,
        )
