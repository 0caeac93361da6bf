"""Engines by name, each imported when it is first used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from ume_retrieval.checkpoint import EmbedderSpec, ReasonerSpec, RerankerSpec
from ume_retrieval.engines.base import Embedder, PairScorer, Pretrained, Reasoner, Spec
from ume_retrieval.engines.memory import gigabytes, room_of
from ume_retrieval.engines.registry import Resolved
from ume_retrieval.engines.replicas import ReplicatedEmbedder, ReplicatedReasoner, devices_of
from ume_retrieval.engines.server.options import ServerOptions
from ume_retrieval.errors import InputError, ModelTooLarge
from ume_retrieval.profiles import Profile

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Where and how a model runs.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:1", …; of several, "cuda:0,cuda:1" or "cuda:all", the engine "transformers"
            puts a replica on each.
        dtype: "auto" (bfloat16 on a GPU, float32 on the CPU), "float32", "bfloat16" or "float16".
        trust_remote_code: Whether code that comes with a checkpoint may run.
        server: Addresses of engine "server"; None reads the environment.
        profile: How items are written for the Embedder; None leaves it to the checkpoint or its family.
    """

    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    server: ServerOptions | None = None
    profile: Profile | str | None = None


def _elsewhere(models: Sequence[Resolved], options: LoadOptions) -> LoadOptions:  # noqa: ARG001  # one of Engine.place
    """Return the options unchanged: the weights are not in this process."""
    return options


def _no_scorer(resolved: Resolved, options: LoadOptions) -> PairScorer:  # noqa: ARG001  # one of Engine.load_scorer
    raise InputError(f"this engine does not load rerankers such as {resolved.model}", hint="use engine='transformers'")


@dataclass(frozen=True, slots=True)
class Engine:
    """How one engine loads each kind of model.

    Attributes:
        load_embedder: From a resolved name to an Embedder.
        load_reasoner: From a resolved name to a Reasoner.
        place: Checks, before anything is loaded, that models fit the device together, and may choose it.
        load_scorer: From a resolved name to a reranker of pairs.
    """

    load_embedder: Callable[[Resolved, LoadOptions], Embedder]
    load_reasoner: Callable[[Resolved, LoadOptions], Reasoner]
    place: Callable[[Sequence[Resolved], LoadOptions], LoadOptions] = _elsewhere
    load_scorer: Callable[[Resolved, LoadOptions], PairScorer] = _no_scorer


def require_room(models: Sequence[Resolved], options: LoadOptions) -> LoadOptions:
    """Refuse models whose weights do not fit the device together.

    Only weights count; memory for inputs comes on top. Models whose number of parameters
    is not in the catalogue are left out.

    Args:
        models: Models to load.
        options: Where and in which numbers; each of several devices gets all models.

    Returns:
        The same options.

    Raises:
        ModelTooLarge: When they do not fit.
        InputError: When the device or the number type does not exist.
    """
    known = [model for model in models if model.parameters]
    if known:
        from ume_retrieval.engines.transformers.loading import choose_device

        for device in devices_of(options.device):
            _require_room_on(choose_device(device), known, options.dtype)
    return options


def find_room(models: Sequence[Resolved], options: LoadOptions) -> LoadOptions:
    """Choose the device: for "auto" the first GPU if the models fit it together, else the processor, with a warning.

    Raises:
        ModelTooLarge: When they fit neither, or not the device that was named.
        InputError: As `require_room` does.
    """
    try:
        return require_room(models, options)
    except ModelTooLarge as error:
        if options.device != "auto":
            raise
        on_cpu = replace(options, device="cpu")
        require_room(models, on_cpu)  # the machine's own words where it is too small as well
        logger.warning("%s: running on the processor, which is slow", error.message)
        return on_cpu


def _require_room_on(device: torch.device, models: Sequence[Resolved], dtype: str) -> None:
    from ume_retrieval.engines.transformers.loading import choose_dtype

    number = choose_dtype(dtype, device)
    size = sum((model.parameters or 0) * number.itemsize for model in models)
    room = room_of(device)
    if room.capacity is None or room.holds(size):
        return
    names = " and ".join(model.model for model in models)
    free = " free" if device.type == "cuda" else ""
    raise ModelTooLarge(
        f"{names} {'needs' if len(models) == 1 else 'need'} {gigabytes(size)} for weights in "
        f"{str(number).removeprefix('torch.')}, and {room.what} has {gigabytes(room.capacity)}{free}",
        hint="choose a smaller model (`ume models` says what fits), leave the Reasoner out, or use engine='server'",
    )


def _embedder_spec(resolved: Resolved, options: LoadOptions) -> EmbedderSpec:
    spec = cast("EmbedderSpec", resolved.spec)
    return spec if options.profile is None else spec.with_profile(options.profile)


def _reasoner_spec(resolved: Resolved) -> ReasonerSpec:
    return cast("ReasonerSpec", resolved.spec)


def _reranker_spec(resolved: Resolved) -> RerankerSpec:
    return cast("RerankerSpec", resolved.spec)


def _replicas(kind: type[Pretrained[Spec]], resolved: Resolved, options: LoadOptions, spec: Spec) -> list[Any]:
    """Load a model once on each device that the options name."""
    return [_in_process(kind, resolved, replace(options, device=one), spec) for one in devices_of(options.device)]


def _in_process(kind: type[Pretrained[Spec]], resolved: Resolved, options: LoadOptions, spec: Spec) -> Any:
    return kind.from_pretrained(
        resolved.model,
        spec=spec,
        revision=resolved.revision,
        device=options.device,
        dtype=options.dtype,
        trust_remote_code=options.trust_remote_code,
    )


def _transformers_embedder(resolved: Resolved, options: LoadOptions) -> Embedder:
    spec = _embedder_spec(resolved, options)
    kind: type[Pretrained[EmbedderSpec]]
    if spec.family == "sentence-transformers":
        from ume_retrieval.engines.sentence_transformers import SentenceTransformersEmbedder

        kind = SentenceTransformersEmbedder
    else:
        from ume_retrieval.engines.transformers.embedder import TransformersEmbedder

        kind = TransformersEmbedder
    several: list[Embedder] = _replicas(kind, resolved, options, spec)
    return ReplicatedEmbedder(several) if several[1:] else several[0]


def _transformers_reasoner(resolved: Resolved, options: LoadOptions) -> Reasoner:
    from ume_retrieval.engines.transformers.reasoner import TransformersReasoner

    several: list[Reasoner] = _replicas(TransformersReasoner, resolved, options, _reasoner_spec(resolved))
    return ReplicatedReasoner(several) if several[1:] else several[0]


def _transformers_scorer(resolved: Resolved, options: LoadOptions) -> PairScorer:
    spec = _reranker_spec(resolved)
    kind: type[Pretrained[RerankerSpec]]
    if spec.family == "cross-encoder":
        from ume_retrieval.engines.cross_encoder import CrossEncoderScorer

        kind = CrossEncoderScorer
    else:
        from ume_retrieval.engines.transformers.reranker import TransformersReranker

        kind = TransformersReranker
    scorer: PairScorer = _in_process(kind, resolved, options, spec)
    return scorer


def _vllm_embedder(resolved: Resolved, options: LoadOptions) -> Embedder:
    from ume_retrieval.engines.vllm.embedder import VllmEmbedder

    embedder: Embedder = _in_process(VllmEmbedder, resolved, options, _embedder_spec(resolved, options))
    return embedder


def _vllm_reasoner(resolved: Resolved, options: LoadOptions) -> Reasoner:
    from ume_retrieval.engines.vllm.reasoner import VllmReasoner

    reasoner: Reasoner = _in_process(VllmReasoner, resolved, options, _reasoner_spec(resolved))
    return reasoner


def _vllm_scorer(resolved: Resolved, options: LoadOptions) -> PairScorer:
    from ume_retrieval.engines.vllm.reranker import VllmReranker

    scorer: PairScorer = _in_process(VllmReranker, resolved, options, _reranker_spec(resolved))
    return scorer


def _server_embedder(resolved: Resolved, options: LoadOptions) -> Embedder:
    from ume_retrieval.engines.server.embedder import ServerEmbedder

    server, spec = options.server or ServerOptions.from_environment(), _embedder_spec(resolved, options)
    return ServerEmbedder.connect(resolved.model, spec=spec, options=server, revision=resolved.revision)


def _server_reasoner(resolved: Resolved, options: LoadOptions) -> Reasoner:
    from ume_retrieval.engines.server.reasoner import ServerReasoner

    server, spec = options.server or ServerOptions.from_environment(), _reasoner_spec(resolved)
    return ServerReasoner.connect(resolved.model, spec=spec, options=server, revision=resolved.revision)


def _server_scorer(resolved: Resolved, options: LoadOptions) -> PairScorer:
    from ume_retrieval.engines.server.reranker import ServerReranker

    server, spec = options.server or ServerOptions.from_environment(), _reranker_spec(resolved)
    return ServerReranker.connect(resolved.model, spec=spec, options=server, revision=resolved.revision)


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        "transformers": Engine(_transformers_embedder, _transformers_reasoner, find_room, _transformers_scorer),
        "vllm": Engine(_vllm_embedder, _vllm_reasoner, require_room, _vllm_scorer),  # for a GPU or a processor
        "server": Engine(_server_embedder, _server_reasoner, load_scorer=_server_scorer),
    }
)
"""Every engine that exists; "auto" takes the first."""


def choose_engine(name: str = "auto") -> Engine:
    """Return the engine of that name.

    Raises:
        InputError: When the name is unknown; the hint lists the engines.

    Example:
        >>> choose_engine() is ENGINES["transformers"]
        True
    """
    if name == "auto":
        return next(iter(ENGINES.values()))
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}", hint=f"use one of auto, {', '.join(ENGINES)}")
    return ENGINES[name]
