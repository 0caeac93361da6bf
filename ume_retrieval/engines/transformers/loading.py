"""Devices, number types, checkpoints and their fingerprints, for the engines on transformers."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ume_retrieval.checkpoint import ModelInfo, read_spec
from ume_retrieval.engines.base import Source
from ume_retrieval.engines.checkpoint_files import (
    ADAPTERS,
    Located,
    check_files,
    family_of,
    first_line,
    locate,
    modules_of,
)
from ume_retrieval.errors import IncompatibleModel, InputError, ModelError, UmeError

if TYPE_CHECKING:
    import torch

SAMPLED_ABOVE = 64 * 2**20
"""Files above this size are fingerprinted by samples, so that 16 GB of weights do not delay the start."""

UNREAD = re.compile(r"^lm_head\.|\brotary_emb\.inv_freq$|\bposition_ids$")
"""Weights that a checkpoint may have and a model not read, since they decide nothing about what it computes:

- `lm_head`: the head that writes words, in a model that is loaded without it (an Embedder), or tied to the embeddings;
- `inv_freq` and `position_ids`: constants that older versions of transformers stored, and newer ones compute.

What the architecture itself declares as left out is not reported as unexpected in the first place.
"""

POOLER = re.compile(r"(^|\.)pooler\.")
"""Weights of a pooler behind the last layer, as BERT has one: trained models without it are common."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in memory.

    Attributes:
        model: The transformers model, in evaluation mode on its device.
        processor: Its processor.
        info: Name and revision.
    """

    model: Any
    processor: Any
    info: ModelInfo


def choose_device(device: str) -> torch.device:
    """Return the device to run on: "auto" takes the first GPU when there is one; anything else is torch's own name.

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
    """Return the number type to run in: "auto" is bfloat16 on a GPU and float32 elsewhere.

    Raises:
        InputError: When the name is unknown.
    """
    import torch

    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in names:
        raise InputError(f"unknown dtype {dtype!r}", hint=f"use one of auto, {', '.join(names)}")
    return names[dtype]


def load_checkpoint(source: Source, model_class: str) -> Loaded:
    """Load a model with its processor, whole or not at all.

    Weights come from safetensors only, since others are pickles, which may run code. Each weight of the model must be
    in the checkpoint, in its shape and finite, and each weight of the checkpoint must be read by the model (`UNREAD`
    says which need not); transformers would fill gaps with random numbers.

    Args:
        source: The checkpoint.
        model_class: Name of the transformers class, such as "AutoModelForImageTextToText".

    Raises:
        ModelError: When it cannot be found, or a file is missing or damaged.
        IncompatibleModel: When the parts of the checkpoint do not fit each other: naming the first weight that is
            missing, unexpected, misshapen or not finite, or what the processor lacks.
    """
    name = source.name
    target = choose_device(source.device)
    number = choose_dtype(source.dtype, target)
    located = locate(name, source.revision)
    check_files(located.folder)
    # Later than what can go wrong without it: importing takes seconds.
    import transformers

    processor = load_processor(name, located)
    classes: Any = transformers
    try:
        with _without_report():
            model, report = getattr(classes, model_class).from_pretrained(
                located.folder,
                dtype=number,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # else transformers names none of them
            )
    except Exception as error:  # configurations of strangers make transformers raise almost any type
        raise cannot_load(name, error) from error
    check_weights(name, report)
    model.to(target)
    model.eval()
    _check_numbers(name, model)
    _check_processor(name, processor, model)
    revision = known_revision(str(located.folder), located.commit)
    return Loaded(model, processor, ModelInfo(short_name(name), revision, "transformers"))


def load_processor(name: str, located: Located) -> Any:
    """Load a checkpoint's processor.

    Args:
        name: Name of the checkpoint in errors.
        located: Where it is.

    Raises:
        ModelError: When its files cannot be read.
        IncompatibleModel: When it cannot read text or pictures, or lacks a chat template.
    """
    import transformers

    classes: Any = transformers
    try:
        processor = classes.AutoProcessor.from_pretrained(located.folder)
    except Exception as error:  # transformers and tokenizers raise almost any type on damaged files
        raise cannot_load(name, error) from error
    for part, file_name in (("tokenizer", "tokenizer.json"), ("image_processor", "preprocessor_config.json")):
        if getattr(processor, part, None) is None:
            raise IncompatibleModel(
                f"cannot load {name}: its processor lacks a {part.replace('_', ' ')}",
                hint=f"copy {file_name} from where the checkpoint came from",
            )
    if len(processor.tokenizer) - len(processor.tokenizer.added_tokens_decoder) <= 0:
        # transformers makes an empty tokenizer of no file.
        raise IncompatibleModel(
            f"cannot load {name}: its tokenizer has no words",
            hint="copy tokenizer.json from where the checkpoint came from",
        )
    if not (processor.chat_template or processor.tokenizer.chat_template):
        raise IncompatibleModel(
            f"cannot load {name}: it has no chat template",
            hint="copy chat_template.jinja or chat_template.json from where the checkpoint came from",
        )
    _try_processor(name, processor)
    return processor


def _try_processor(name: str, processor: Any) -> None:
    """Raise when the processor cannot write a turn with a picture: nothing else reads templates and settings before."""
    import PIL.Image

    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}
    try:
        text = processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        processor(text=[text], images=[PIL.Image.new("RGB", (64, 64))])
    except Exception as error:  # templates and settings of strangers make it raise almost any type
        raise IncompatibleModel(
            f"cannot load {name}: its processor cannot write a picture ({first_line(error)})",
            hint="copy chat template and preprocessor_config.json from where the checkpoint came from",
        ) from error


def check_weights(name: str, report: Mapping[str, Any]) -> None:
    """Raise unless model and checkpoint have the same weights.

    Args:
        name: Name of the checkpoint in errors.
        report: What transformers returns with `output_loading_info=True`.

    Raises:
        IncompatibleModel: Naming the first weight, in the order of names, that is missing, misshapen or unexpected.

    Example:
        >>> check_weights("mine", {"missing_keys": {"norm.weight"}, "mismatched_keys": [], "unexpected_keys": []})
        Traceback (most recent call last):
        ume_retrieval.errors.IncompatibleModel: cannot load mine: the weight norm.weight is missing
    """
    hint = "the checkpoint is not whole, or its config.json is another model's; download or export it again"
    shapes = [
        f"the weight {key} has shape {tuple(stored)}, the model's is {tuple(wanted)}"
        for key, stored, wanted in sorted(report["mismatched_keys"])
    ]
    missing = [f"the weight {key} is missing" for key in sorted(report["missing_keys"])]
    unexpected = [
        f"the model has no place for the weight {key}"
        for key in sorted(report["unexpected_keys"])
        if not UNREAD.search(key)
    ]
    found = shapes + missing + unexpected + [first_line(ValueError(one)) for one in report.get("error_msgs") or ()]
    if found:
        more = f" (and {len(found) - 1} more)" if found[1:] else ""
        raise IncompatibleModel(f"cannot load {name}: {found[0]}{more}", hint=hint)


def check_sentence_transformer(name: str, folder: Path, model: Any) -> None:
    """Raise unless the weights of a model that sentence-transformers has loaded come from its folder.

    sentence-transformers does not look at what was missing, so the architecture is laid over the folder's files once
    more, without reading a weight. Which part of a checkpoint makes vectors is its choice: weights too many may be
    there, and a pooler may be missing where a pooling module reads the tokens' states.

    Args:
        name: Name of the model in errors.
        folder: Where it was loaded from.
        model: The `SentenceTransformer`.

    Raises:
        IncompatibleModel: Naming the first weight that is missing, misshapen or not finite.
    """
    from transformers import PreTrainedModel

    loaded = list(dict.fromkeys(inner for module in model for inner in _with_routes(module)))
    pools = any(type(module).__name__ == "Pooling" for module in loaded)
    modules = modules_of(folder) or [("Transformer", "")]
    for (_, path), module in zip(modules, loaded, strict=False):
        inner = getattr(module, "model", None)
        if not isinstance(inner, PreTrainedModel) or (folder / path / ADAPTERS).is_file():
            continue
        with _without_report():
            kind: Any = type(inner)
            _, report = kind.from_pretrained(
                folder / path,
                config=inner.config,
                device_map="meta",
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        missing = {key for key in report["missing_keys"] if not (pools and POOLER.search(key))}
        check_weights(name, {**report, "missing_keys": missing, "unexpected_keys": ()})
    _check_numbers(name, model)


def _with_routes(module: Any) -> Iterator[Any]:
    """Yield a module and what is inside if it is a Router: in the order of `modules_of`."""
    yield module
    routes = module.sub_modules.values() if hasattr(module, "sub_modules") else ()
    for inner in dict.fromkeys(one for route in routes for one in route):
        yield from _with_routes(inner)


def cannot_load(name: str, error: Exception) -> UmeError:
    """Return an error of transformers as one of this library, in one line."""
    if isinstance(error, UmeError):
        return error
    hint = "give a folder that holds config, weights and processor of one model"
    return ModelError(f"cannot load {name}: {first_line(error)}", hint=hint)


def _check_numbers(name: str, model: Any) -> None:
    """Raise when a weight holds NaN or infinity; one pass, and one look from the host."""
    import torch

    weights = dict(model.named_parameters())
    # A sum is finite unless a term is not, or, rarely, it overflows: so only suspects are read again.
    with torch.inference_mode():
        finite = torch.isfinite(torch.stack([weight.sum(dtype=torch.float32) for weight in weights.values()]))
    suspects = [weight for weight, is_finite in zip(weights, finite.tolist(), strict=True) if not is_finite]
    for weight in suspects:
        if not bool(torch.isfinite(weights[weight]).all()):
            raise IncompatibleModel(
                f"cannot load {name}: the weight {weight} holds NaN or infinity",
                hint="download or export it again; with dtype='float16' try bfloat16 or float32",
            )


def _check_processor(name: str, processor: Any, model: Any) -> None:
    """Raise when the processor is another model's: more tokens than rows, pictures at other ids or in other patches."""
    hint = "use the tokenizer and processor files that came with the checkpoint"
    rows = model.get_input_embeddings().weight.shape[0]
    last = max(processor.tokenizer.get_vocab().values())
    if last >= rows:
        raise IncompatibleModel(
            f"cannot load {name}: its tokenizer has {last + 1} tokens, its embedding matrix {rows} rows", hint=hint
        )
    config, pictures = model.config, processor.image_processor
    vision = getattr(config, "vision_config", None)
    pairs = [("tokenizer", processor, config, kind, kind) for kind in ("image_token_id", "video_token_id")]
    pairs += [("processor", pictures, vision, size, size) for size in ("patch_size", "temporal_patch_size")]
    pairs += [("processor", pictures, vision, "merge_size", "spatial_merge_size")]
    for part, has, reads, setting, wanted in pairs:
        known, expected = getattr(has, setting, None), getattr(reads, wanted, None)
        if None not in (known, expected) and known != expected:
            words = setting.replace("_", " ")
            raise IncompatibleModel(
                f"cannot load {name}: the {words} is {known} in its {part}, {expected} in its config", hint=hint
            )


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from printing its table of weights that do not fit: the first becomes an error."""
    logger = logging.getLogger("transformers.modeling_utils")

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def known_revision(name: str, commit: str | None) -> str:
    """Return the revision of weights: a commit of the hub, else the fingerprint of a folder, else "unknown"."""
    return commit or (fingerprint(Path(name)) if Path(name).is_dir() else "unknown")


def short_name(name: str) -> str:
    """Return the name of a model for caches and collections: a hub id unchanged, a folder without its parents.

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
    """Return a digest of a checkpoint folder: names, sizes and bytes of its files (samples of the large ones).

    Folders of modules, such as `1_Pooling`, count where sentence-transformers makes the vectors.

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
    own = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    for path in [*own, *_module_files(folder)]:
        if bundled and path.name in STOCK_FILES:
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= SAMPLED_ABOVE:
                digest.update(file.read())
                continue
            for part in range(16):
                file.seek(part * (size - 2**20) // 15)
                digest.update(file.read(2**20))
    return f"sha256:{digest.hexdigest()[:12]}"


def _module_files(folder: Path) -> list[Path]:
    """Files of the modules that have folders of their own, if the folder is loaded by sentence-transformers."""
    inner = [folder / path for _, path in modules_of(folder) if path not in {"", "."}]
    if not inner or getattr(read_spec(folder), "family", family_of(folder)) != "sentence-transformers":
        return []
    return sorted({path for one in inner for path in one.rglob("*") if path.is_file()})
