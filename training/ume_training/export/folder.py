"""`export`: whatever a stage has trained, as a folder to load and to give away."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from ume_retrieval.checkpoint import EmbedderSpec, ReasonerSpec, read_spec, write_spec
from ume_retrieval.errors import InputError
from ume_training.contrastive.run import RUN, TRAINED
from ume_training.export.card import Card, write_card
from ume_training.export.merge import merge_embedder
from ume_training.export.stock import add_stock_modules
from ume_training.run_folder import atomic_folder

LEFT_BEHIND = frozenset({"optimizer.pt", "scheduler.pt", "training_args.bin", "trainer_state.json", "README.md"})
"""Files of a training that a checkpoint does not need."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A checkpoint that was written.

    Attributes:
        folder: Where.
        role: What the model does.
    """

    folder: Path
    role: Literal["embedder", "reasoner"]


def export(
    run: Path, out: Path, *, card: Card | None = None, spec: ReasonerSpec | None = None, replace: bool = False
) -> Exported:
    """Export a trained model.

    Args:
        run: A contrastive run (adapters are merged), an EG-RL run (its `reasoner/`), or a checkpoint.
        out: Where to; missing or empty unless `replace` is set. It appears at once, whole, or not at all.
        card: Facts for `README.md`, or None for no card.
        spec: How a Reasoner is prompted, where its folder does not say.
        replace: Put the new checkpoint in the place of what is there.

    Raises:
        InputError: When there is nothing to export, or `out` is not empty.
        ModelError: When the base of adapters cannot be loaded.
        MissingExtra: When peft is needed and missing.
    """
    if (run / TRAINED).is_dir() or (run / RUN).is_file():
        return Exported(merge_embedder(run, out, card=card, replace=replace), "embedder")
    source = run / "reasoner" if (run / "reasoner").is_dir() else run
    found = _described(source, spec)
    with atomic_folder(out, replace=replace) as part:
        _copy(source, part)
        write_spec(found, part)
        own_family = isinstance(found, EmbedderSpec) and found.family != "sentence-transformers"
        if own_family and not (part / "modules.json").is_file():
            add_stock_modules(part, cast("EmbedderSpec", found))
        if card is not None:
            write_card(card, part)
    return Exported(out, found.role)


def _described(source: Path, spec: ReasonerSpec | None) -> ReasonerSpec | EmbedderSpec:
    if not (source / "config.json").is_file():
        raise InputError(f"{source} holds neither a finished run nor a checkpoint", hint="name the folder of a run")
    found = read_spec(source) or spec
    if found is None:
        raise InputError(f"{source} does not say how the model is prompted", hint="it needs ume.json")
    return found


def _copy(source: Path, part: Path) -> None:
    """Copy the files of a complete checkpoint, byte for byte."""
    for path in sorted(source.iterdir()):
        if path.is_dir():
            shutil.copytree(path, part / path.name)
        elif path.name not in LEFT_BEHIND:
            shutil.copy2(path, part / path.name)
