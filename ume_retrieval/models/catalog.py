"""The catalogue of models: one JSON file per model in `ume_retrieval/models/`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ume_retrieval.errors import ModelError

BUNDLED: Final = "bundled"
"""Replaces a hub id if the package contains the weights."""

FIGURES: Final = ("parameters", "license", "dimension", "matryoshka_dims", "modalities")
"""Fields of a card that need a source if known."""

CardRole: TypeAlias = Literal["embedder", "reasoner", "reranker"]
"""Role of a catalogued model."""

Family: TypeAlias = Literal["embed-rl", "qwen3-vl-embedding", "sentence-transformers", "instruct", "qwen3-vl-reranker"]
"""Input format of a catalogued model; `registry.FAMILIES` has the specs of loadable families."""


class PublishedInput(BaseModel):
    """One input with published figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = None
    instruction: str | None = None
    image: str | None = None
    """A name in `Published.images`."""


class PublishedVector(BaseModel):
    """The first values of the vector of one input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Annotated[int, Field(ge=1)]
    """Number of the input, from 1."""
    first: Annotated[tuple[float, ...], Field(min_length=1)]


class Published(BaseModel):
    """Figures that the authors of a model published, with the inputs that they belong to.

    The tolerances are for bfloat16. Independent ports of a 2B model reach a cosine of 0.9997 to the published vectors;
    over 2048 values that is 0.0005 a value (root mean square), so 0.004 leaves room for the largest of some values. A
    vector pooled at another token differs by ten times as much.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    inputs: Annotated[tuple[PublishedInput, ...], Field(min_length=1)]
    images: dict[str, str] = {}
    """Addresses or files of the pictures, by name."""
    similarities: tuple[tuple[int, int, float], ...] = ()
    """Numbers of two inputs, from 1, and the cosine of their vectors."""
    values: tuple[PublishedVector, ...] = ()
    similarity_tolerance: Annotated[float, Field(gt=0)] = 0.01
    value_tolerance: Annotated[float, Field(gt=0)] = 0.004

    @model_validator(mode="after")
    def _refer_to_inputs(self) -> Self:
        numbers = [number for first, second, _ in self.similarities for number in (first, second)]
        numbers += [vector.input for vector in self.values]
        if not numbers:
            raise ValueError("neither similarities nor values")
        if not all(1 <= number <= len(self.inputs) for number in numbers):
            raise ValueError(f"inputs are numbered from 1 to {len(self.inputs)}")
        unknown = {one.image for one in self.inputs if one.image} - self.images.keys()
        if unknown:
            raise ValueError(f"no address of the image {min(unknown)}")
        return self


class ModelCard(BaseModel):
    """Known facts about a model. An unpublished figure is None, never a guess."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Short name, lower case."""
    role: CardRole
    model: str
    """Hub id, folder, or "bundled"."""
    revision: str | None = None
    """Commit of the hub to load; None for the newest."""
    family: Family | None = None
    """Input format; None if the checkpoint folder declares it."""
    parameters: Annotated[int, Field(gt=0)] | None = None
    license: str | None = None
    dimension: Annotated[int, Field(gt=0)] | None = None
    matryoshka_dims: tuple[int, ...] = ()
    """Dimensions to which vectors may be truncated, ascending; the last is `dimension`."""
    modalities: tuple[Literal["text", "image", "video", "audio"], ...] = ()
    reasoner: str | None = None
    """Default Reasoner of this Embedder, by card name."""
    parity: Literal["own weights", "random weights", "not proven"] | None = None
    """Whether an Embedder's vectors are proven equal to the authors': "random weights" means compared with the authors'
    code on a random checkpoint of the true architecture; "own weights" are this project's, and need no comparison."""
    ran: bool = False
    """Whether this project has run these weights."""
    note: str = ""
    """One line for people."""
    sources: dict[str, str] = {}
    """Where each of `FIGURES` comes from."""
    published: Published | None = None

    @model_validator(mode="after")
    def _figures_have_sources(self) -> Self:
        known = {figure for figure in FIGURES if getattr(self, figure) not in (None, ())}
        if lacking := sorted(known - self.sources.keys()):
            raise ValueError(f"no source for {', '.join(lacking)}")
        if unneeded := sorted(self.sources.keys() - known):
            raise ValueError(f"a source for {', '.join(unneeded)}, but no value")
        if (self.role == "embedder") != (self.parity is not None):
            raise ValueError("parity is said of Embedders, and of each of them")
        if self.matryoshka_dims and self.matryoshka_dims[-1] != self.dimension:
            raise ValueError("the last of matryoshka_dims is not the dimension")
        return self

    @property
    def weight_bytes(self) -> int | None:
        """Memory of the weights in bfloat16, in bytes, or None where the parameters are unknown.

        Example:
            >>> [card] = find_cards("qwen3-vl-embedding-2b")
            >>> f"{card.weight_bytes / 1e9:.1f} GB"
            '4.3 GB'
        """
        return None if self.parameters is None else 2 * self.parameters


def read_card(path: Path) -> ModelCard:
    """Read the card of one model.

    Raises:
        ModelError: If the file cannot be read or is not a valid card; names the first invalid field.
    """
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{path} is not a model card: {field + ': ' if field else ''}{first['msg']}",
            hint="compare it with the files in ume_retrieval/models",
        ) from error


@cache
def cards() -> tuple[ModelCard, ...]:
    """Read the whole catalogue: the bundled pair first, then Embedders, Reasoners and Rerankers by name."""
    roles = ("embedder", "reasoner", "reranker")
    folder = Path(str(files("ume_retrieval"))) / "models"
    found = (read_card(path) for path in folder.glob("*.json"))
    return tuple(sorted(found, key=lambda card: (card.model != BUNDLED, roles.index(card.role), card.name)))


def find_cards(name: str) -> tuple[ModelCard, ...]:
    """Find the cards of a short name or hub id, in any case; several where a pair shares a name.

    Example:
        >>> [card.role for card in find_cards("UME-tiny")]
        ['embedder', 'reasoner']
        >>> find_cards("nobody/nothing")
        ()
    """
    wanted = name.lower()
    return tuple(card for card in cards() if wanted in {card.name, card.model.lower()} - {BUNDLED})
