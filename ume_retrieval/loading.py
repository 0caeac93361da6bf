"""What both transformers engines share: devices, number types, checkpoints and their fingerprints."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ume_retrieval.errors import InputError, ModelError

if TYPE_CHECKING:
    import torch

SAMPLED_ABOVE = 64 * 2**20
"""Files above this size are fingerprinted by samples, so that 16 GB of weights do not delay the start."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in memory.

    Attributes:
        model: The transformers model, in evaluation mode on its device.
        processor: Its processor.
        revision: Commit on the hub, or fingerprint of the folder.
    """

    model: Any
    processor: Any
    revision: str


def choose_device(device: str) -> torch.device:
    """The device to run on: "auto" takes the first GPU when there is one; anything else is torch's own name.

    Raises:
        InputError: When the device does not exist here.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(f"cannot use device {device!r}: {first_line}", hint="run `ume doctor`") from error
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The number type to run in: "auto" is bfloat16 on a GPU and float32 elsewhere.

    Raises:
        InputError: When the name is none of float32, bfloat16, float16, auto.
    """
    import torch

    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in names:
        raise InputError(f"there is no dtype {dtype!r}", hint=f"use one of auto, {', '.join(names)}")
    return names[dtype]


def load_checkpoint(name: str, model_class: str, *, revision: str | None, device: str, dtype: str) -> Loaded:
    """Load a model with its processor.

    Args:
        name: A folder, or a hub id.
        model_class: Name of the transformers class, such as "AutoModelForImageTextToText".
        revision: Commit, tag or branch on the hub; None for a folder or the newest.
        device: See `choose_device`.
        dtype: See `choose_dtype`.

    Raises:
        ModelError: When it cannot be found or loaded.
    """
    import transformers

    target = choose_device(device)
    try:
        classes: Any = transformers
        processor = classes.AutoProcessor.from_pretrained(name, revision=revision)
        model = getattr(classes, model_class).from_pretrained(
            name,
            revision=revision,
            dtype=choose_dtype(dtype, target),
            use_safetensors=True,  # other weights are pickles, which may run code
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        hint = "check the name and the network, or give a folder that holds config, weights and processor"
        raise ModelError(f"cannot load {name}: {first_line}", hint=hint) from error
    model.to(target)
    model.eval()
    return Loaded(model, processor, known_revision(name, getattr(model.config, "_commit_hash", None) or revision))


def known_revision(name: str, commit: str | None) -> str:
    """Which weights a name stands for: a commit of the hub, else the fingerprint of a folder, else "unknown"."""
    return commit or (fingerprint(Path(name)) if Path(name).is_dir() else "unknown")


def short_name(name: str) -> str:
    """What a model is called in caches and collections: a hub id as it is, a folder without where it lies.

    Example:
        >>> short_name("Qwen/Qwen3-VL-2B-Instruct")
        'Qwen/Qwen3-VL-2B-Instruct'
    """
    folder = Path(name)
    if not folder.is_dir():
        return name
    resolved = folder.resolve()
    return f"{resolved.parent.name}/{resolved.name}" if resolved.name in {"embedder", "reasoner"} else resolved.name


STOCK_FILES = frozenset({"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"})
"""By which sentence-transformers loads a checkpoint; nothing else reads them where `ume.json` says how to."""


def fingerprint(folder: Path) -> str:
    """A digest of a checkpoint folder: names, sizes and bytes of its files (samples of the large ones).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "config.json").write_text("{}")
        ...     fingerprint(Path(folder))
        'sha256:555dc36908b3'
    """
    digest = hashlib.sha256()
    # The bundled pair got its stock files late: collections that it made before are still its own.
    bundled = Path(str(files("ume_retrieval"))) / "pretrained" in folder.resolve().parents
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        if bundled and path.name in STOCK_FILES:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= SAMPLED_ABOVE:
                digest.update(file.read())
                continue
            for part in range(16):
                file.seek(part * (size - 2**20) // 15)
                digest.update(file.read(2**20))
    return f"sha256:{digest.hexdigest()[:12]}"
