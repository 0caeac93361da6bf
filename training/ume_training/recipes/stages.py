"""The stages that a recipe is made of, each with its settings."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ume_retrieval.engines.registry import Role
from ume_training.contrastive.settings import FREE_TO_CHANGE, ContrastiveSettings
from ume_training.data.judge import COUNTS_WORDS
from ume_training.egrl.settings import EgrlSettings
from ume_training.shapes.pair.architecture import Size
from ume_training.shapes.pair.loop import Schedule

MADE_BY = "stage:"
"""`stage:NAME` is what an earlier stage of the same recipe made, `stage:NAME/rejected` what a filter rejected."""

MODEL_KEYS: Mapping[str, Role] = {
    "start": "reasoner",
    "reasoner": "reasoner",
    "embedder": "embedder",
    "discriminator": "reasoner",
    "judge": "reasoner",
}
"""Keys whose value names a model, and what it is taken for."""

OWN_DATA = "data"
"""Value of a stage's `data` that means the recipe's own."""

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Makes: TypeAlias = Literal["reasoner", "embedder", "pairs", "nothing"]
LevelName: TypeAlias = Literal["default", "questions", "rich", "hard"]


class Settings(BaseModel):
    """Base of all parts of a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Keys of earlier releases, which are still read."""

    @model_validator(mode="before")
    @classmethod
    def _read_old_keys(cls, data: object) -> object:
        if isinstance(data, dict):
            for old in [key for key in data if key in cls.renamed and cls.renamed[key] not in data]:
                warnings.warn(f"`{old}` is now `{cls.renamed[old]}`", FutureWarning, stacklevel=2)
                data = {cls.renamed.get(key, key): value for key, value in data.items()}
        return data


SCHEDULE_FREE = frozenset(
    {"schedule.save_every", "schedule.log_every", "warm_start.save_every", "warm_start.log_every"}
)


class ScheduleSettings(Settings):
    """How long and how fast a stage learns: a cosine after a linear warm-up, AdamW."""

    steps: Positive
    """Optimizer steps."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak of the cosine, reached after warm-up."""
    warmup: Positive = 50
    """Steps of linear warm-up."""
    floor: Share = 0.05
    """Last learning rate as a share of the peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Of AdamW."""
    save_every: Positive = 100
    """Steps between saved states; a killed run loses at most so many."""
    log_every: Positive = 25
    """Steps between log lines."""

    def value(self) -> Schedule:
        """As the training loop takes it."""
        return Schedule(**self.model_dump())


class SizeSettings(Settings):
    """Width and depth of the small pair; defaults are those of the bundled one."""

    hidden: Annotated[int, Field(gt=0, multiple_of=8)] = 128
    """Width of the language model."""
    layers: Positive = 4
    """Depth of the language model."""
    vision_hidden: Annotated[int, Field(gt=0, multiple_of=16)] = 128
    """Width of the vision tower."""
    vision_layers: Annotated[int, Field(ge=2)] = 3
    """Depth of the vision tower."""

    def value(self) -> Size:
        """As the model's builder takes it."""
        return Size(**self.model_dump())


class Stage(Settings):
    """Base of all stages."""

    makes: ClassVar[Makes] = "nothing"
    """Kind of result that later stages may take."""
    parts: ClassVar[tuple[str, ...]] = ("",)
    """Parts that may follow the slash of a `stage:NAME/part`."""
    world_only: ClassVar[bool] = False
    """Draws its own pairs from the Shapes world."""
    free: ClassVar[frozenset[str]] = frozenset()
    """Keys that may change without the stage being run again: they decide speed and logs, not what is learned."""
    parallel: ClassVar[bool] = False
    """Runs on all processes of a launch; other stages run on the main one while the others wait."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")] = ""
    """Name of the stage's folder and in `stage:NAME`; by default the kind of the stage."""

    @model_validator(mode="before")
    @classmethod
    def _named_like_its_kind(cls, data: object) -> object:
        if isinstance(data, dict) and "name" not in data and isinstance(data.get("stage"), str):
            return {**data, "name": data["stage"]}
        return data


class WorldStage(Stage):
    """A stage of the small pair, on pairs drawn from the Shapes world."""

    makes: ClassVar[Makes] = "reasoner"
    world_only: ClassVar[bool] = True
    free: ClassVar[frozenset[str]] = SCHEDULE_FREE

    schedule: ScheduleSettings
    """Steps and learning rate."""
    batch: Positive = 32
    """Examples per step."""


class CaptionsStage(WorldStage):
    """From random weights to short captions of pictures, clips and pages (Shapes)."""

    stage: Literal["captions"]
    size: SizeSettings = SizeSettings()
    """Width and depth of both models of the pair."""


class TracesStage(WorldStage):
    """From captions to T-CoTs of every task and side (Shapes)."""

    stage: Literal["traces"]
    start: str = "stage:captions"
    """Checkpoint to start from."""


class QuestionsStage(WorldStage):
    """The Reasoner alone: three times in four a task that must point at one thing among several (Shapes)."""

    stage: Literal["questions"]
    start: str = "stage:traces"
    """Checkpoint to start from."""


class VectorsStage(WorldStage):
    """The small pair's Embedder: symmetric InfoNCE on true T-CoTs, then among look-alikes (Shapes)."""

    makes: ClassVar[Makes] = "embedder"
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({"kin": "group_size", "apart": "warm_start"})

    stage: Literal["vectors"]
    start: str = "stage:traces"
    """Checkpoint to start from."""
    warm_start: ScheduleSettings
    """First, on pairs that have nothing to do with each other: thrown among look-alikes at once, an Embedder maps
    everything to one vector and stays there."""
    batch: Positive = 64
    """Pairs a step, a multiple of `group_size`."""
    group_size: Positive = 4
    """Pairs of a family of look-alikes."""
    trace_share: Share = 0.5
    """Share of steps whose inputs carry T-CoTs; the rest keeps direct vectors good."""

    @model_validator(mode="after")
    def _whole_families(self) -> VectorsStage:
        if self.batch % self.group_size:
            raise ValueError(f"batch {self.batch} is not a multiple of group_size {self.group_size}")
        return self


class AnnotateStage(Stage):
    """T-CoTs for both sides of every pair, written by a Reasoner; from Shapes, pairs are written as files first."""

    makes: ClassVar[Makes] = "pairs"
    free: ClassVar[frozenset[str]] = frozenset({"batch"})
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({"leak_share": "answer_hint_prob"})

    stage: Literal["annotate"]
    data: str = OWN_DATA
    """Pairs to annotate: "data" is the recipe's own, `stage:NAME` an earlier stage's."""
    reasoner: str
    """Who writes: preset, hub id, folder or `stage:NAME`."""
    answer_hint_prob: Share = 0.0
    """Share of queries with a known answer whose Reasoner is shown it; the released data has 0.5. Which ones is written
    into the data."""
    max_tokens: Positive | None = None
    """Most tokens of a T-CoT; null takes what the Reasoner's checkpoint asks for."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy decoding."""
    batch: Positive = 32
    """Pairs that are read, asked and written together."""
    on_error: Literal["stop", "skip"] = "skip"
    """Stop the run at a broken pair, or skip it and list it."""


class FilterStage(Stage):
    """A judge keeps pairs whose T-CoTs fit each other; `stage:NAME` is what is kept, `stage:NAME/rejected` the rest."""

    makes: ClassVar[Makes] = "pairs"
    parts: ClassVar[tuple[str, ...]] = ("", "rejected")

    stage: Literal["filter"]
    data: str = "stage:annotate"
    """Annotated pairs."""
    judge: str
    """Who decides: a Reasoner, or "words:SHARE" for words in common (Shapes only)."""
    undecided: Literal["keep", "reject"] = "reject"
    """Treatment of pairs that the judge answers neither with yes nor no; the paper keeps on "No" alone."""
    on_error: Literal["stop", "skip"] = "skip"
    """Stop the run at a broken line, or skip it and list it."""

    @field_validator("judge")
    @classmethod
    def _a_share(cls, judge: str) -> str:
        kind, _, share = judge.partition(":")
        if kind == COUNTS_WORDS and share and not re.fullmatch(r"0*\.\d+|0|1(\.0*)?", share):
            raise ValueError(f"{judge!r} is not a judge; write words:0.5, with a share of 0 to 1")
        return judge


class EgrlStage(Stage):
    """EG-RL: GRPO on the Reasoner with the frozen Embedder as its reward."""

    makes: ClassVar[Makes] = "reasoner"
    parallel: ClassVar[bool] = True

    stage: Literal["egrl"]
    data: str = OWN_DATA
    """Pairs to learn from: "data" is the recipe's own, `stage:NAME` an annotate or filter stage's,
    `stage:NAME/rejected` what a filter rejected. Their T-CoTs are not read; broken ones are named and left out."""
    choose: Literal["all", "hard"] = "all"
    """"hard" keeps whole groups of look-alikes that the Reasoner's greedy T-CoTs do not tell apart: a step on pairs
    that all rollouts get right teaches nothing."""
    settings: EgrlSettings
    """How; `seed` is the recipe's unless it is given. Models may be `stage:NAME`."""


class ScoreStage(Stage):
    """hit@1 on held-out Shapes data, direct, reasoned and fused; written as `scores.json`."""

    stage: Literal["score"]
    reasoner: str
    """Reasoner to score."""
    embedder: str
    """Embedder to score."""
    level: LevelName = "default"
    """How hard the world is."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)
    """Seeds of the held-out data; training never draws them."""
    queries: Positive = 20
    """Queries a task and seed."""
    candidates: Annotated[int, Field(ge=2)] = 100
    """Least candidates a task, look-alikes among them."""


class ContrastiveStage(Stage):
    """Stage 1 of Embed-RL: the Embedder learns by symmetric InfoNCE on inputs with their T-CoTs."""

    makes: ClassVar[Makes] = "embedder"
    parallel: ClassVar[bool] = True

    free: ClassVar[frozenset[str]] = frozenset(f"settings.{key}" for key in FREE_TO_CHANGE)

    stage: Literal["contrastive"]
    data: str = OWN_DATA
    """Pairs to learn from: "data" is the recipe's own, `stage:NAME` an annotate or filter stage's."""
    settings: ContrastiveSettings
    """How; `seed` is the recipe's unless it is given. `embedder` may be `stage:NAME`."""


class ExportStage(Stage):
    """A folder with `reasoner/`, `embedder/` and a model card, that `ReasoningEmbedder.from_pretrained` loads."""

    stage: Literal["export"]
    reasoner: str | None = None
    """Reasoner of the pair, or null to export an Embedder alone."""
    embedder: str | None = None
    """Embedder of the pair, or null to export a Reasoner alone."""
    scores: str | None = None
    """Name of a `score` stage whose figures go into the model card."""
    out: str | None = None
    """Folder to write; `--out` overrides it, and null is a folder inside the run."""

    @model_validator(mode="after")
    def _something(self) -> ExportStage:
        if self.reasoner is None and self.embedder is None:
            raise ValueError("give `reasoner`, `embedder` or both")
        return self


AnyStage: TypeAlias = Annotated[
    CaptionsStage
    | TracesStage
    | QuestionsStage
    | VectorsStage
    | AnnotateStage
    | FilterStage
    | ContrastiveStage
    | EgrlStage
    | ScoreStage
    | ExportStage,
    Field(discriminator="stage"),
]
"""Any stage; `stage:` names its kind."""
