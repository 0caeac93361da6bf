"""Verify a model's vectors against the figures that its authors published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ume_retrieval.errors import InputError, ModelError
from ume_retrieval.inputs import Item
from ume_retrieval.models.catalog import BUNDLED, ModelCard, Published, find_cards, read_card

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ume_retrieval.engines.registry import Resolved


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published figure and our own.

    Attributes:
        what: Which figure, such as "similarity 1-2" or "vector 3, value 0".
        published: As published.
        own: As computed here.
        tolerance: Most by which they may differ.
    """

    what: str
    published: float
    own: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the figures agree within the tolerance; NaN never does."""
        return abs(self.own - self.published) <= self.tolerance


def card_to_verify(name: str) -> ModelCard:
    """Find the card of an Embedder by catalogue name, hub id, or path of a card file (`.json`).

    Raises:
        ModelError: If the card is not found, or is not an Embedder's.
    """
    if name.endswith(".json"):
        return read_card(Path(name).expanduser())
    found = find_cards(name)
    for card in found:
        if card.role == "embedder":
            return card
    if found:
        raise ModelError(f"{name} is a {found[0].role}; vectors of Embedders are verified")
    raise ModelError(
        f"{name} is not in the catalogue", hint="`ume models` lists it; a card of your own is a .json file"
    )


def weights_of(card: ModelCard, folder: Path | None, *, allow_remote: bool) -> Resolved:
    """Find the weights before anything is loaded; the network is used only where that is allowed.

    Args:
        card: The Embedder.
        folder: Where the weights are, in place of the card's own hub id.
        allow_remote: Whether weights may come from the hub.

    Raises:
        ModelError: When the weights are not on this machine; the hint says how to get them.
    """
    from ume_retrieval.engines.registry import Resolved, resolve_embedder, spec_of

    spec = spec_of(card)
    place = str(folder) if folder else card.name if card.model == BUNDLED else card.model
    if spec is None and not folder and card.model == BUNDLED:
        return resolve_embedder(place)
    if Path(place).expanduser().is_dir():
        return resolve_embedder(place) if spec is None else Resolved(str(Path(place).expanduser()), None, spec)
    if folder:
        raise ModelError(f"folder {folder} not found", hint="name the folder that holds config.json and the weights")
    if spec is None:
        raise ModelError(f"{card.name} names neither a family nor a folder", hint="write `family` into the card")
    if allow_remote:
        return Resolved(place, card.revision, spec, parameters=card.parameters)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(place, revision=card.revision, local_files_only=True)
    except LocalEntryNotFoundError as error:
        size = f" ({card.weight_bytes / 1e9:.1f} GB)" if card.weight_bytes else ""
        raise ModelError(
            f"the weights of {place}{size} are not on this machine",
            hint=f"`hf download {place}`, --weights FOLDER, or --allow-remote to load them from the hub",
        ) from error
    return Resolved(snapshot, None, spec, parameters=card.parameters)


def published_items(published: Published, image: Path | None, *, allow_remote: bool) -> list[Item]:
    """Make the published inputs.

    Args:
        published: Inputs and where their pictures are.
        image: The picture on this machine.
        allow_remote: Whether pictures may be fetched from their addresses.

    Raises:
        InputError: When a picture is needed and neither given nor allowed to be fetched.
    """
    places = _places(published, image, allow_remote=allow_remote)
    return [
        Item(text=one.text, images=(places[one.image],) if one.image else (), instruction=one.instruction)
        for one in published.inputs
    ]


def _places(published: Published, image: Path | None, *, allow_remote: bool) -> Mapping[str, str]:
    if image is not None:
        if len(published.images) != 1:
            raise InputError(f"the published inputs have {len(published.images)} pictures, and one was given")
        return dict.fromkeys(published.images, str(image))
    remote = [address for address in published.images.values() if "://" in address]
    if remote and not allow_remote:
        raise InputError(
            f"the published inputs need the picture {' and '.join(remote)}",
            hint="download it and name it with --image, or fetch it with --allow-remote",
        )
    return published.images


def image_hosts(published: Published) -> list[str]:
    """Hosts of the pictures' addresses."""
    return sorted({urlsplit(address).hostname or "" for address in published.images.values() if "://" in address})


def compare(published: Published, vectors: npt.NDArray[np.float32]) -> list[Comparison]:
    """Compare your vectors with the published figures.

    Args:
        published: The figures.
        vectors: Vectors of the published inputs in order, shape (n, dim), rows of length 1.

    Example:
        >>> import numpy as np
        >>> one = Published(sources=("a card",), inputs=({"text": "a"}, {"text": "b"}), similarities=((1, 2, 0.5),))
        >>> [comparison] = compare(one, np.eye(2, dtype=np.float32))
        >>> comparison.what, comparison.own, comparison.agrees
        ('similarity 1-2', 0.0, False)
    """
    made = [
        Comparison(
            f"similarity {first}-{second}",
            value,
            float(vectors[first - 1] @ vectors[second - 1]),
            published.similarity_tolerance,
        )
        for first, second, value in published.similarities
    ]
    for vector in published.values:
        own = vectors[vector.input - 1]
        if len(vector.first) > len(own):
            raise InputError(f"{len(vector.first)} values are published, and our vectors have {len(own)}")
        made += [
            Comparison(f"vector {vector.input}, value {place}", value, float(own[place]), published.value_tolerance)
            for place, value in enumerate(vector.first)
        ]
    return made
