"""Load models in workers: each loads its own, on its machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from ume_qdrant.stores.schema import CollectionMeta
from ume_retrieval.checkpoint import EmbedderSpec, Prompts, VisualBudget
from ume_retrieval.engines.base import Embedder, Reasoner, Sampling, tcot_sampling
from ume_retrieval.engines.load import LoadOptions, choose_engine
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner, with_prompts
from ume_retrieval.errors import InputError
from ume_retrieval.media import DEFAULT_LIMITS, Limits
from ume_retrieval.pipeline import InMemoryTraceCache, ReasonStage, default_cache_path
from ume_retrieval.pipeline.spare_traces import SpareableTraces, open_cache
from ume_retrieval.profiles import Profile
from ume_retrieval.results import PipelineInfo


@dataclass(frozen=True, slots=True)
class Models:
    """The Embedder and the Reasoner, as functions that load them in a worker.

    Attributes:
        embedder: Loads the Embedder. A function of a module that every worker can import, or a `functools.partial`.
        reasoner: Loads the Reasoner; None without reasoning.
        cache: File of traces on each machine, shared by its workers. "auto" is
            `ume_retrieval.pipeline.trace_cache.default_cache_path()` there; None disables it. SQLite is not safe on
            network shares, so each machine needs its own file. Points in the collection are never reasoned over again.
        sampling: How the Reasoner decodes; greedily by default.
        limits: Limits of decoding.

    Example:
        >>> from ume_retrieval.testing import FakeReasoner, HashEmbedder
        >>> Models(HashEmbedder, FakeReasoner, cache=None).describe(reasoned=True).meta.reasoner
        'fake-reasoner'
    """

    embedder: Callable[[], Embedder]
    reasoner: Callable[[], Reasoner] | None = None
    cache: Path | Literal["auto"] | None = "auto"
    sampling: Sampling | None = None
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def named(
        cls,
        name: str | Path = "ume-tiny",
        *,
        reasoner: str | Path | None = "auto",
        engine: str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        cache: Path | Literal["auto"] | None = "auto",
        sampling: Sampling | None = None,
        limits: Limits = DEFAULT_LIMITS,
        prompts: Prompts | Path | None = None,
        profile: str | Profile | None = None,
    ) -> Models:
        """Choose models by name, as `ReasoningEmbedder.from_pretrained` does.

        Resolves names and reads a file of prompts now, and loads weights later. Folders of weights must have the same
        path on every machine; each machine's environment must hold the address and key of the engine "server".

        Raises:
            ModelError: When a name is unknown.
            InputError: When the engine or the family's profile is unknown, or the prompts are invalid.
        """
        choose_engine(engine)
        resolved = resolve_embedder(str(name))
        wanted = resolved.reasoner if reasoner == "auto" else reasoner
        understood = None if wanted is None else resolve_reasoner(str(wanted))
        if prompts is not None:
            prompts = prompts if isinstance(prompts, Prompts) else Prompts.from_file(prompts)
            with_prompts(understood, prompts)
        if profile is not None and isinstance(resolved.spec, EmbedderSpec):
            profile = resolved.spec.with_profile(profile).profile  # a typing error shows here, not in a worker
        options = LoadOptions(device, dtype, profile=profile)
        return cls(
            partial(_load_embedder, str(name), engine, options),
            None if wanted is None else partial(_load_reasoner, str(wanted), engine, options, prompts),
            cache=cache,
            sampling=sampling,
            limits=limits,
        )

    def describe(self, *, reasoned: bool) -> Description:
        """Load the models once and describe them for the collection and the decoders.

        Args:
            reasoned: Whether to load the Reasoner too.

        Raises:
            UmeError: When a model cannot be loaded.
        """
        embedder = self.embedder()
        meta = CollectionMeta(embedder.info.name, embedder.info.revision, embedder.spec.writing, embedder.dimension)
        if not reasoned or self.reasoner is None:
            return Description(meta, PipelineInfo(embedder.info, None, None), embedder.spec, None)
        reasoner = self.reasoner()
        version = reasoner.spec.prompts.version
        meta = replace(
            meta, reasoner=reasoner.info.name, reasoner_revision=reasoner.info.revision, prompt_version=version
        )
        return Description(
            meta, PipelineInfo(embedder.info, reasoner.info, version), embedder.spec, reasoner.spec.budget
        )

    def reasoning(self, embedder: EmbedderSpec) -> ReasonStage:
        """The reasoning stage, with its own Reasoner.

        Args:
            embedder: How the Embedder wants its input.

        Raises:
            InputError: Without a Reasoner.
        """
        if self.reasoner is None:
            raise no_reasoner()
        reasoner = self.reasoner()
        path = default_cache_path() if self.cache == "auto" else self.cache
        cache = None if path is None else open_cache(path)
        return ReasonStage(
            reasoner=reasoner,
            sampling=self.sampling or tcot_sampling(reasoner),
            traces=InMemoryTraceCache() if cache is None else SpareableTraces(cache),
            embedder=embedder,
            side="corpus",
        )


@dataclass(frozen=True, slots=True)
class Description:
    """Description of models that are not loaded; `meta` is that of a collection that is made with them."""

    meta: CollectionMeta
    info: PipelineInfo
    embedder: EmbedderSpec
    reasoner_budget: VisualBudget | None

    @property
    def plain_meta(self) -> CollectionMeta:
        """`meta` without the Reasoner, for a new collection."""
        return replace(self.meta, reasoner="", reasoner_revision="", prompt_version="")


def no_reasoner() -> InputError:
    """Return the error for reasoning without a Reasoner."""
    return InputError("reasoning needs a Reasoner", hint="name one, or index with reasoning='never'")


def _load_embedder(name: str, engine: str, options: LoadOptions) -> Embedder:
    return choose_engine(engine).load_embedder(resolve_embedder(name), options)


def _load_reasoner(name: str, engine: str, options: LoadOptions, prompts: Prompts | None) -> Reasoner:
    resolved = resolve_reasoner(name)
    return choose_engine(engine).load_reasoner(with_prompts(resolved, prompts) if prompts else resolved, options)
