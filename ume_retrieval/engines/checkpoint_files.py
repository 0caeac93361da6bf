"""Locate the files of a checkpoint, check that they load safely and completely, and detect its kind.

Nothing here loads weights. Every engine that reads a checkpoint itself looks at its files first, so that a damaged or
foreign one is refused by the name of what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ume_retrieval.errors import IncompatibleModel, ModelError
from ume_retrieval.profiles import Family
from ume_retrieval.util.json_text import parse_json

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTERS, MODULES, ROUTER = "adapter_config.json", "modules.json", "router_config.json"
TOKENIZER = "tokenizer.json"
STOCK = "config_sentence_transformers.json"

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
OPTIONAL = (
    *PROCESSOR_FILES,
    "chat_template.json",
    "generation_config.json",
    "special_tokens_map.json",
    TOKENIZER,
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
)
"""Files that a checkpoint may lack, but that must not be damaged: transformers does not always say which one is."""

HUB_TIMEOUT_S = 4.0
"""Longest wait for the hub's first answer, in seconds; after it, what the cache holds is all there is."""

WANTED = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
"""Files that are fetched from the hub. Pickled weights never are."""

UNWANTED = ("onnx/*", "openvino/*", "original/*", "checkpoint-*/*")
"""Folders of the hub that hold the same weights for other programs, or earlier ones."""

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True, slots=True)
class Located:
    """A checkpoint on this machine.

    Attributes:
        folder: Where its files are.
        commit: The hub's commit that they are of, or None for a folder of one's own.
    """

    folder: Path
    commit: str | None


def locate(name: str, revision: str | None, *, code: bool = False) -> Located:
    """Find a checkpoint's folder; a hub id is downloaded into the hub's cache unless it is there.

    The hub is asked once, for at most `HUB_TIMEOUT_S`, before anything is downloaded. Without an answer the cache
    decides, so a machine without network loads what it has, and says within seconds what it lacks.

    Args:
        name: A folder, or a hub id.
        revision: Commit, tag or branch on the hub; None for the newest.
        code: Whether Python files are fetched too.

    Raises:
        ModelError: When the model is neither in the cache nor on the hub, or the hub cannot be reached.
    """
    own = Path(name).expanduser()
    if own.is_dir():
        return Located(own, None)
    from huggingface_hub import HfApi, snapshot_download

    failure: Exception | None = None
    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 - errors of whichever HTTP library this version of the hub's client uses
        failure = error
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            local_files_only=failure is not None,
            allow_patterns=[*WANTED, *(["*.py"] if code else [])],
            ignore_patterns=list(UNWANTED),
        )
    except Exception as error:  # noqa: BLE001 - as above
        raise _not_fetched(name, failure or error) from (failure or error)
    return Located(Path(folder), Path(folder).name)


def check_files(folder: Path) -> None:
    """Raise unless the folder holds configuration and processor files that can be read, and whole safetensors.

    Raises:
        IncompatibleModel: When it holds LoRA adapters only, or pickled weights.
        ModelError: Naming the file that is missing or damaged.
    """
    refuse_adapters(folder)
    read_json(folder / CONFIG)
    for name in OPTIONAL:
        if (folder / name).exists():
            read_json(folder / name)
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        raise _damaged(folder / PROCESSOR_FILES[1], "is missing, and so is processor_config.json")
    for path in _weight_files(folder):
        _check_safetensors(path)


def refuse_adapters(folder: Path) -> None:
    """Raise when the folder holds LoRA adapters: transformers would load their base, wherever that is, in its place.

    Raises:
        IncompatibleModel: Naming the base; the hint says how to merge.
    """
    if not (folder / ADAPTERS).is_file():
        return
    base = read_json(folder / ADAPTERS).get("base_model_name_or_path") or "an unnamed base"
    if (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
        raise IncompatibleModel(
            f"{folder} holds LoRA adapters of {base} next to whole weights",
            hint=f"remove {ADAPTERS} if the weights have the adapters in them, else merge them",
        )
    raise IncompatibleModel(
        f"{folder} holds LoRA adapters of {base}, not a whole model",
        hint="merge them first: `ume train export` for what this library trained, else peft's merge_and_unload()",
    )


def require_safetensors(folder: Path) -> None:
    """Raise when a sentence-transformers model, or one of its modules, has its weights in pickles.

    A module's folder is looked at with all that is in it; of the model's own folder, the files. Pickles next to
    safetensors are never read, and do no harm.

    Raises:
        IncompatibleModel: Naming the pickled file.
    """
    modules = [folder / path for _, path in modules_of(folder) if path]
    inner = [path for module in modules if module.is_dir() for path in (module, *module.rglob("*")) if path.is_dir()]
    for part in dict.fromkeys([folder, *inner]):
        _refuse_pickles(part)
        for path in sorted(part.glob("*.safetensors")):
            _check_safetensors(path)


def family_of(folder: Path) -> Family | None:
    """Tell by its content what kind of Embedder a folder holds; its name plays no part.

    - embed-rl: the config names the pooled token (`emb_token_ids`);
    - qwen3-vl-embedding: a Qwen3-VL whose tokenizer appends the token that is pooled (technical report of
      Qwen3-VL-Embedding, and its published `tokenizer.json`), if sentence-transformers files that lie next to it
      pool the last token too, as the published ones do;
    - sentence-transformers: everything else that has a `modules.json`.

    Returns:
        The family, or None when the content says nothing.

    Raises:
        ModelError: When a file that has to be read for this is damaged.
    """
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if config.get("emb_token_ids") is not None:
        return "embed-rl"
    if is_qwen3_vl(folder) and _appends_token(folder / TOKENIZER) and _pools_last(folder):
        return "qwen3-vl-embedding"
    return "sentence-transformers" if (folder / MODULES).is_file() else None


def is_qwen3_vl(folder: Path) -> bool:
    """Whether the folder's configuration is a Qwen3-VL's."""
    return (folder / CONFIG).is_file() and read_json(folder / CONFIG).get("model_type") == "qwen3_vl"


def is_cross_encoder(folder: Path) -> bool:
    """Whether a folder holds a sentence-transformers CrossEncoder, or a classifier of one label that makes one."""
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    stock = read_json(folder / STOCK) if (folder / STOCK).is_file() else {}
    classifiers = [str(name) for name in config.get("architectures") or () if "SequenceClassification" in str(name)]
    return stock.get("model_type") == "CrossEncoder" or bool(classifiers)


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file of a checkpoint.

    Raises:
        ModelError: When the file is missing or holds something else.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _damaged(path, "is missing") from error
    except (OSError, ValueError) as error:
        raise _damaged(path, f"cannot be read as JSON ({first_line(error)})") from error
    if not isinstance(data, dict):
        raise _damaged(path, "holds no JSON object")
    return data


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message, with the next line if it is a heading; the error's type if empty.

    Example:
        >>> first_line(ValueError("no such file\ntry another"))
        'no such file'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])


def _weight_files(folder: Path) -> Iterator[Path]:
    if (folder / WEIGHTS).exists():
        yield folder / WEIGHTS
        return
    if not (folder / INDEX).exists():
        _refuse_pickles(folder)
        raise _damaged(folder / WEIGHTS, "is missing")
    named = read_json(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(shard, str) for shard in named.values()):
        raise _damaged(folder / INDEX, "names no shards")
    for shard in sorted(set(named.values())):
        if Path(shard).name != shard:
            raise _damaged(folder / INDEX, f"names a file outside the folder ({shard})")
        if not (folder / shard).is_file():
            raise _damaged(folder / shard, f"is missing, but {INDEX} names it")
        yield folder / shard


def _check_safetensors(path: Path) -> None:
    """Raise unless the header can be read and fits the file's size; no weight is read."""
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        beginning = file.read(24)
    if beginning.startswith(b"version https://git-lfs"):
        raise _damaged(path, "is a pointer to the weights, not the weights", hint="fetch them with `git lfs pull`")
    if not beginning:
        raise _damaged(path, "is empty")
    try:
        with safe_open(path, framework="numpy") as opened:
            opened.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, f"is damaged ({first_line(error)})") from error


def _refuse_pickles(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLES and path.is_file():
            raise IncompatibleModel(
                f"{path} is pickled weights, which may run code; only safetensors are loaded",
                hint="ask for a revision with safetensors, or convert them on a machine that may run strangers' code",
            )


def modules_of(folder: Path) -> list[tuple[str, str]]:
    """Class and folder of each module that sentence-transformers would load, as `modules.json` names them.

    A Router is followed by the modules of its routes, in the order of the routes.

    Raises:
        ModelError: When the file is there and names no modules, or a Router's file names none.
    """
    path = folder / MODULES
    if not path.is_file():
        return []
    try:
        named = parse_json(path.read_text(encoding="utf-8"))
        modules = [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in named]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, "names no modules") from error
    return [one for module in modules for one in _with_routes(folder, *module)]


def _with_routes(folder: Path, kind: str, path: str) -> Iterator[tuple[str, str]]:
    """Yield a module, and after it what is inside if it is a Router (formerly Asym, with a file named config.json)."""
    yield kind, path
    if kind not in {"Router", "Asym"}:
        return
    own = folder / path
    config = own / (ROUTER if (own / ROUTER).is_file() else CONFIG)
    settings = read_json(config)
    try:
        # Modules outside of every route are loaded too.
        names = dict.fromkeys(
            [*(name for route in settings["structure"].values() for name in route), *settings["types"]]
        )
        inner = [(str(settings["types"][name]).rpartition(".")[2], (Path(path) / name).as_posix()) for name in names]
    except (TypeError, KeyError, AttributeError) as error:
        raise _damaged(config, "names no modules") from error
    for module in inner:
        yield from _with_routes(folder, *module)


def _pools_last(folder: Path) -> bool:
    """Whether sentence-transformers files, if any, say what the family does: the last token's state, made a unit."""
    modules = modules_of(folder)
    poolings = [read_json(folder / path / CONFIG) for kind, path in modules if kind == "Pooling"]
    return {kind for kind, _ in modules} <= {"Transformer", "Pooling", "Normalize"} and all(
        settings.get("pooling_mode") == "lasttoken" or settings.get("pooling_mode_lasttoken") is True
        for settings in poolings
    )


def _appends_token(path: Path) -> bool:
    if not path.is_file():
        return False
    from tokenizers import Tokenizer

    try:
        return bool(Tokenizer.from_file(str(path)).encode("").ids)
    except Exception as error:  # tokenizers raises bare exceptions
        raise _damaged(path, f"cannot be read ({first_line(error)})") from error


def _damaged(path: Path, what: str, *, hint: str = "copy or download the whole checkpoint again") -> ModelError:
    return ModelError(f"cannot load {path.parent}: {path.name} {what}", hint=hint)


def _not_fetched(name: str, error: Exception) -> ModelError:
    """The hub's error in the library's words."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        hint = "accept its terms on the hub, and set HF_TOKEN to a token of that account"
        return ModelError(f"cannot load {name}: access to it has to be asked for", hint=hint)
    if isinstance(error, RepositoryNotFoundError):
        hint = "check the name; for a private model set HF_TOKEN"
        return ModelError(f"cannot load {name}: the hub does not have or show this model", hint=hint)
    if isinstance(error, RevisionNotFoundError):
        return ModelError(f"cannot load {name}: the hub does not have this revision of it", hint="check the revision")
    return ModelError(
        f"cannot load {name}: it is not in the cache, and the hub does not answer ({first_line(error)})",
        hint="connect to the network or set HF_ENDPOINT to a mirror; or set HF_HOME to a cache that holds it, "
        "or name a folder with its files",
        retryable=True,
    )
