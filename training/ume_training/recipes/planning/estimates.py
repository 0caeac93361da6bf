"""Steps, tokens, memory and time of each stage, from a recipe alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from ume_training.recipes.planning import memory
from ume_training.recipes.planning.memory import ADAM_BYTES, GB, Memory
from ume_training.recipes.planning.sizes import Architecture, architecture_of
from ume_training.recipes.schema import Recipe
from ume_training.recipes.stages import (
    MADE_BY,
    OWN_DATA,
    CaptionsStage,
    ContrastiveStage,
    EgrlStage,
    ExportStage,
    QuestionsStage,
    SizeSettings,
    Stage,
    TracesStage,
    VectorsStage,
)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens that a model reads and writes per item.

    Attributes:
        prompt: The prompt's own words and the item's text.
        picture: Its image, page or frames.
        trace: Its T-CoT.
        evidence: Crops and key frames.
    """

    prompt: int
    picture: int
    trace: int
    evidence: int

    @property
    def rollout(self) -> int:
        """Tokens that the Reasoner reads and writes."""
        return self.prompt + self.picture + self.trace

    @property
    def embedded(self) -> int:
        """Tokens that the Embedder reads.

        Example:
            >>> ASSUMED.embedded, ASSUMED.rollout
            (1436, 1308)
        """
        return self.rollout + self.evidence


ASSUMED = Lengths(prompt=300, picture=768, trace=240, evidence=128)
"""Of real data: one image at the top of the visual budget (768 x 32^2 pixels), T-CoTs as long as after RL (arXiv
2602.13823), one crop at the bottom of the budget. Not measured."""

SHAPES = Lengths(prompt=18, picture=12, trace=40, evidence=2)
"""Of the Shapes world; together as long as the examples that `MEASURED` comes from."""

TINY_VOCABULARY = 571
"""Tokens of the small pair's tokenizer."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A measured rate of the small pair at its default size.

    Attributes:
        steps_per_s: Optimizer steps a second.
        batch: Examples or pairs of a step when it was measured.
        tokens: Tokens of such a step.
    """

    steps_per_s: float
    batch: int
    tokens: float


MEASURED: Mapping[str, Rate] = MappingProxyType({"captions": Rate(2.30, 32, 1490), "traces": Rate(2.00, 32, 2240)})
"""From the logs of one run on 2 CPU cores (700 and 1,200 steps, torch 2.15, other work running at low priority)."""

MEASURED_ON = "2 CPU cores"


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Estimated cost of a stage, per process.

    Attributes:
        name: Of the stage.
        kind: Of the stage.
        steps: Optimizer steps, or None where they depend on data that is not there.
        tokens: Tokens that pass through the trained model in all, about; None where nothing is known.
        memory: By what it holds, or None where the model's size is not known or nothing is trained.
        seconds: Only from rates that were measured.
        disk: Bytes that are written, about.
        model: Parameters of the model that is trained.
        notes: What the figures rest on.
    """

    name: str
    kind: str
    steps: int | None = None
    tokens: int | None = None
    memory: Memory | None = None
    seconds: float | None = None
    disk: int = 0
    model: int | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "stage": self.kind,
            "steps": self.steps,
            "tokens": self.tokens,
            "memory_gb": self.memory.to_dict() if self.memory else None,
            "minutes": None if self.seconds is None else round(self.seconds / 60, 1),
            "disk_gb": round(self.disk / GB, 2),
            "parameters": self.model,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Setting:
    """Conditions of an estimate.

    Attributes:
        recipe: The whole recipe.
        pairs: How many pairs its data holds, or None.
        processes: How many share a step.
        shards: Over how many gradients and optimizer are divided: the processes with ZeRO-2, 1 with DDP.
        gpu: Memory of each GPU, for what vLLM takes of it; 0 where it is not known.
        number_bytes: Of the forward pass: 2 on a GPU, 4 on the CPU.
    """

    recipe: Recipe
    pairs: int | None
    processes: int
    shards: int
    gpu: int
    number_bytes: int

    @property
    def lengths(self) -> Lengths:
        """Of its items."""
        return SHAPES if self.recipe.data.shapes else ASSUMED


def estimate(stage: Stage, setting: Setting) -> StagePlan:
    """Estimate the cost of a stage."""
    return _ESTIMATES.get(type(stage), _unknown)(stage, setting)


def tiny_architecture(size: SizeSettings) -> Architecture:
    """Return the small pair's numbers; see `ume_training.shapes.pair.architecture`."""
    return Architecture(
        hidden=size.hidden,
        intermediate=3 * size.hidden,
        layers=size.layers,
        heads=4,
        kv_heads=2,
        head_dim=size.hidden // 4,
        vocabulary=TINY_VOCABULARY,
        tied=True,
        vision_hidden=size.vision_hidden,
        vision_intermediate=3 * size.vision_hidden,
        vision_layers=size.vision_layers,
        vision_positions=64,
        deepstack=2,
    )


def trained_architecture(name: str, recipe: Recipe) -> Architecture | None:
    """Return the architecture behind a model's name, through any chain of `stage:NAME`."""
    if not name.startswith(MADE_BY):
        return architecture_of(name)
    stage: Any = recipe.stage(name.removeprefix(MADE_BY).partition("/")[0])
    if isinstance(stage, CaptionsStage):
        return tiny_architecture(stage.size)
    if isinstance(stage, ContrastiveStage):
        return trained_architecture(stage.settings.embedder, recipe)
    if isinstance(stage, EgrlStage):
        return trained_architecture(stage.settings.reasoner, recipe)
    return trained_architecture(stage.start, recipe)


def _unknown(stage: Any, _: Setting) -> StagePlan:
    return StagePlan(stage.name, stage.stage)


def _small(stage: Any, setting: Setting) -> StagePlan:
    """Estimate a stage of the small pair, on the CPU in float32."""
    model = trained_architecture(f"{MADE_BY}{stage.name}", setting.recipe)
    steps = stage.schedule.steps + (stage.warm_start.steps if isinstance(stage, VectorsStage) else 0)
    rate = MEASURED.get(stage.stage)
    default = model == tiny_architecture(SizeSettings())
    tokens = round(steps * rate.tokens * stage.batch / rate.batch) if rate else None
    seconds = steps / rate.steps_per_s if rate and default and rate.batch == stage.batch else None
    notes = (f"time as measured on {MEASURED_ON}",) if seconds else ("time not measured",)
    if model is None:
        return StagePlan(stage.name, stage.stage, steps, tokens, None, seconds, notes=notes)
    held = memory.training(
        model, model.parameters, weight_bytes=4, number_bytes=4, tokens=round(tokens / steps) if tokens else 0
    )
    # The state holds weights and two moments; the checkpoint holds the weights again.
    disk = (4 + ADAM_BYTES + 4) * model.parameters
    return StagePlan(stage.name, stage.stage, steps, tokens, held, seconds, disk, model.parameters, notes)


def _contrastive(stage: ContrastiveStage, setting: Setting) -> StagePlan:
    from ume_training.contrastive.run import steps_of

    settings = stage.settings
    counted = stage.data == OWN_DATA or setting.recipe.data.shapes is not None
    # With weights it would take the pairs of each data set, and the plan counts lines without reading them.
    known = setting.pairs if counted and not setting.recipe.data.weights else None
    steps = settings.steps or (steps_of(settings, known) if known else None)
    length = setting.lengths.embedded
    tokens = steps * settings.batch * 2 * length if steps else None
    model = trained_architecture(settings.embedder, setting.recipe)
    notes: tuple[str, ...] = ("time not measured", f"{length} tokens a side assumed")
    if steps is None:
        notes = (*notes, "steps depend on how many pairs there will be")
    if model is None:
        return StagePlan(stage.name, stage.stage, steps, tokens, notes=notes)
    rank = settings.lora.r if settings.lora else None
    learns = memory.trained(model, rank=rank, vision=settings.vision_tower == "trained")
    held = memory.training(
        model,
        learns,
        rank=rank,
        shards=setting.shards,
        weight_bytes=setting.number_bytes if rank else 4,
        number_bytes=setting.number_bytes,
        tokens=settings.mini_batch * length,
    )
    disk = 2 * (4 + ADAM_BYTES) * learns + 2 * (learns * 4) + setting.number_bytes * model.parameters
    return StagePlan(stage.name, stage.stage, steps, tokens, held, None, disk, model.parameters, notes)


def egrl_steps(stage: EgrlStage, pairs: int | None) -> int | None:
    """Optimizer steps of EG-RL: set, or as many as whole batches fit into the data."""
    settings = stage.settings
    if settings.steps:
        return settings.steps
    return settings.epochs * (pairs // settings.pairs) if pairs else None


def _egrl(stage: EgrlStage, setting: Setting) -> StagePlan:
    settings = stage.settings
    steps = egrl_steps(stage, setting.pairs if stage.data == OWN_DATA else None)
    length = setting.lengths.rollout
    rollouts = settings.pairs * 2 * settings.rollouts
    tokens = steps * rollouts * length if steps else None
    model = trained_architecture(settings.reasoner, setting.recipe)
    notes: tuple[str, ...] = ("time not measured", f"{length} tokens a rollout assumed")
    if steps is None:
        notes = (*notes, "steps depend on how many pairs there will be")
    if model is None:
        return StagePlan(stage.name, stage.stage, steps, tokens, notes=notes)
    rank = settings.lora.r if settings.lora else None
    learns = memory.trained(model, rank=rank, vision=not settings.freeze_vision)
    # TRL samples all rollouts of a step at once; vLLM takes the share of the GPU that it is given instead.
    at_once = math.ceil(rollouts / setting.processes) if settings.generation == "transformers" else 0
    vllm = round(settings.vllm_memory * setting.gpu) if settings.generation == "vllm" else 0
    held = replace(
        memory.training(
            model,
            learns,
            rank=rank,
            shards=setting.shards,
            weight_bytes=4,  # TRL loads policy and reference in float32, and computes in bfloat16 on a GPU
            number_bytes=setting.number_bytes,
            tokens=settings.micro_batch * length,
            checkpointing=settings.gradient_checkpointing,
        ),
        logits=memory.logits(model, tokens=settings.micro_batch * settings.max_tokens),
        other_models=_beside(stage, model, setting) + vllm,
        kv_cache=memory.kv_cache(
            model,
            sequences=at_once,
            tokens=length - setting.lengths.trace + settings.max_tokens,
            number_bytes=setting.number_bytes,
        ),
    )
    disk = 2 * (4 + ADAM_BYTES) * learns + 4 * model.parameters * (1 if rank else 3)
    return StagePlan(stage.name, stage.stage, steps, tokens, held, None, disk, model.parameters, notes)


def _beside(stage: EgrlStage, policy: Architecture, setting: Setting) -> int:
    """Frozen models that EG-RL holds: the reference, the Embedder, the discriminator."""
    settings = stage.settings
    held = 4 * policy.parameters if settings.kl and settings.lora is None else 0
    names = [settings.embedder]
    if settings.discriminator != "words" and settings.weights.process:
        names.append(settings.discriminator)
    for name in names:
        model = trained_architecture(name, setting.recipe)
        held += setting.number_bytes * model.parameters if model else 0
    return held


def _export(stage: ExportStage, setting: Setting) -> StagePlan:
    models = [trained_architecture(name, setting.recipe) for name in (stage.reasoner, stage.embedder) if name]
    disk = sum(setting.number_bytes * model.parameters for model in models if model)
    return StagePlan(stage.name, stage.stage, disk=disk)


_ESTIMATES: Mapping[type[Stage], Callable[[Any, Setting], StagePlan]] = MappingProxyType(
    {
        CaptionsStage: _small,
        TracesStage: _small,
        QuestionsStage: _small,
        VectorsStage: _small,
        ContrastiveStage: _contrastive,
        EgrlStage: _egrl,
        ExportStage: _export,
    }
)
