"""A recipe: one YAML file that says how a pair is made, checked with line numbers before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import BaseModel, Field, ValidationError, model_validator

from ume_retrieval.errors import InputError
from ume_training.recipes.stage_state import REPLACED
from ume_training.recipes.stages import (
    MADE_BY,
    MODEL_KEYS,
    AnyStage,
    ContrastiveStage,
    ExportStage,
    LevelName,
    Positive,
    ScoreStage,
    Settings,
    Stage,
)
from ume_training.recipes.yaml_lines import Document, Place, read_yaml

SUFFIX = ".yaml"
MOST_SHOWN = 5
"""Problems that one message names."""


class ShapesData(Settings):
    """Pairs drawn from the Shapes world; nothing is read from disk."""

    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({"kin": "group_size"})

    level: LevelName = "questions"
    """How hard the world is."""
    pairs: Positive = 2000
    """Pairs of each task for `contrastive` and `egrl`; the stages of the small pair draw new ones for ever."""
    group_size: Positive = 4
    """Pairs of a family of look-alikes, which come into the same batch."""


class RecipeData(Settings):
    """Where pairs come from: files, or the Shapes world."""

    pairs: tuple[str, ...] = ()
    """JSONL or Parquet files of pairs, or folders of such shards; relative to the folder that the command runs in."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """How often `contrastive` passes through a data set for each pass of the others, by its name; 1 where it is not
    named, 0 leaves it out."""
    shapes: ShapesData | None = None
    """The Shapes world."""

    @model_validator(mode="after")
    def _one_of_two(self) -> RecipeData:
        if bool(self.pairs) == (self.shapes is not None):
            raise ValueError("give either `pairs` or `shapes`")
        if self.weights and self.shapes:
            raise ValueError("`weights` go with `pairs`")
        return self


class Recipe(Settings):
    """How a pair is made."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the recipe."""
    description: Annotated[str, Field(min_length=1)]
    """Purpose, data and cost, for people."""
    seed: int = 0
    """Of weights, data and sampling, in every stage that does not set its own."""
    data: RecipeData
    """Where pairs come from."""
    stages: Annotated[tuple[AnyStage, ...], Field(min_length=1)]
    """Stages in order."""

    def stage(self, name: str) -> Stage:
        """Return the stage of that name.

        Raises:
            InputError: If it does not exist.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = ", ".join(stage.name for stage in self.stages)
        raise InputError(f"the recipe {self.name} lacks the stage {name!r}", hint=f"it has {names}")


class Reference(NamedTuple):
    """A `stage:NAME` somewhere in a stage's settings.

    Attributes:
        place: Keys that lead to it inside the stage.
        stage: Name of the stage that makes it.
        part: What follows the slash, or "".
    """

    place: tuple[str | int, ...]
    stage: str
    part: str


def references(settings: BaseModel) -> tuple[Reference, ...]:
    """Return every `stage:NAME` in a stage's settings.

    Example:
        >>> from ume_training.recipes.stages import ScoreStage
        >>> references(ScoreStage(stage="score", reasoner="stage:egrl", embedder="ume-tiny"))
        (Reference(place=('reasoner',), stage='egrl', part=''),)
    """
    return tuple(_found_in(settings.model_dump(mode="json"), ()))


def _found_in(value: Any, place: tuple[str | int, ...]) -> Iterator[Reference]:
    if isinstance(value, str) and value.startswith(MADE_BY):
        name, _, part = value.removeprefix(MADE_BY).partition("/")
        yield Reference(place, name, part)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _found_in(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _found_in(inner, (*place, index))


def bundled_recipes() -> tuple[str, ...]:
    """Return names of the recipes that come with the package."""
    folder = Path(str(files("ume_training.recipes") / "bundled"))
    return tuple(sorted(path.stem for path in folder.glob("*" + SUFFIX)))


def recipe_path(name: str) -> Path:
    """Return the file of a recipe.

    Args:
        name: A file, or the name of a bundled recipe. A file wins.

    Raises:
        InputError: When there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    known = bundled_recipes()
    if name in known:
        return Path(str(files("ume_training.recipes") / "bundled" / (name + SUFFIX)))
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"name a file, or one of {', '.join(known)}"
    raise InputError(f"unknown recipe {name!r}", hint=hint)


def load_recipe(name: str) -> Recipe:
    """Read and check a recipe.

    Args:
        name: A file, or the name of a bundled recipe.

    Raises:
        InputError: If it does not exist or is invalid; the message names file, line and reason.
    """
    path = recipe_path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", hint="name a text file") from error
    return parse_recipe(text, str(path) if path.is_file() and str(path) == name else f"{name}{SUFFIX}")


def parse_recipe(text: str, source: str) -> Recipe:
    """Check a recipe's text.

    Args:
        text: YAML.
        source: What messages call it.

    Raises:
        InputError: When it is not right; the message names source, line and reason.
    """
    document = read_yaml(text, source)
    try:
        recipe = Recipe.model_validate(document.data)
    except ValidationError as error:
        raise _not_right(document, [(tuple(e["loc"]), _reason(e["type"], e["msg"])) for e in error.errors()]) from error
    if problems := list(_disagreements(recipe)):
        raise _not_right(document, problems)
    return recipe


def _disagreements(recipe: Recipe) -> Iterator[tuple[Place, str]]:
    """Check across stages: duplicate names, and references to missing results."""
    made: dict[str, Stage] = {}
    for index, stage in enumerate(recipe.stages):
        if stage.name in made:
            yield ("stages", index, "name"), f"two stages are called {stage.name!r}; give one of them another `name`"
        if stage.name == REPLACED:
            yield ("stages", index, "name"), f"{REPLACED}/ is where the run folder keeps what was made before"
        for reference in references(stage):
            place = ("stages", index, *reference.place)
            maker = made.get(reference.stage)
            if maker is None:
                yield place, f"no stage before this one is called {reference.stage!r}"
            elif problem := _unfit(reference, stage, maker):
                yield place, problem
        if stage.world_only and recipe.data.shapes is None:
            yield ("stages", index), f"{stage.name} learns from the Shapes world; give `data.shapes`"
        scores = stage.scores if isinstance(stage, ExportStage) else None
        if scores is not None and not isinstance(made.get(scores), ScoreStage):
            yield ("stages", index, "scores"), f"no score stage before this one is called {scores!r}"
        if stage.world_only and stage.name != getattr(stage, "stage", None):
            yield ("stages", index, "name"), "a stage of the small pair is called as its kind, and comes once"
        made[stage.name] = stage


def _unfit(reference: Reference, stage: Stage, maker: Stage) -> str:
    wanted = "pairs" if reference.place[-1] == "data" else "a model"
    made = "a model" if maker.makes in {"reasoner", "embedder"} else maker.makes
    if wanted != made:
        return f"the stage {maker.name} makes {made}, not {wanted}"
    # Contrastive training makes an Embedder of either, and the small pair's stages start from either.
    key = str(reference.place[-1])
    role = MODEL_KEYS.get(key, maker.makes)
    if role != maker.makes and key != "start" and not isinstance(stage, ContrastiveStage):
        return f"the stage {maker.name} makes the {maker.makes}, not the {role}"
    if reference.part not in maker.parts:
        return f"the stage {maker.name} makes no {reference.part!r}"
    return ""


def _not_right(document: Document, problems: list[tuple[Place, str]]) -> InputError:
    by_line = sorted(problems, key=lambda problem: document.line(problem[0]))
    shown = [f"line {document.line(place)}: {_written(document, place)}{reason}" for place, reason in by_line]
    more = f"; and {len(shown) - MOST_SHOWN} more" if len(shown) > MOST_SHOWN else ""
    return InputError(
        f"{document.source}, {'; '.join(shown[:MOST_SHOWN])}{more}", hint="docs/training.md documents every key"
    )


def _written(document: Document, place: Place) -> str:
    """Return a place as a path of keys; tags of unions are left out."""
    path = ""
    value = document.data
    for position, step in enumerate(place):
        if isinstance(value, list) and isinstance(step, int):
            path += f"[{step}]"
            value = value[step] if step < len(value) else None
        elif isinstance(value, dict) and (step in value or position == len(place) - 1):
            path += f".{step}" if path else str(step)
            value = value.get(step)
    return f"{path}: " if path else ""


def _reason(kind: str, message: str) -> str:
    words = {"extra_forbidden": "unknown key", "missing": "this key is missing"}
    return words.get(kind, message.removeprefix("Value error, "))
