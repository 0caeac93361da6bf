"""A contrastive run's adapters merged into their base: one checkpoint that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ume_retrieval.checkpoint import write_spec
from ume_retrieval.errors import InputError, MissingExtra, ModelError
from ume_training.contrastive.records import ADAPTER_FILE, ROW_FILE
from ume_training.contrastive.run import RUN, RunFacts, read_facts
from ume_training.export.card import Card, write_card
from ume_training.export.stock import write_stock_modules
from ume_training.run_folder import atomic_folder


def merge_embedder(trained: Path, out: Path, *, card: Card | None = None, replace: bool = False) -> Path:
    """Write a trained Embedder as a standalone checkpoint.

    Adapters are merged in float32 and stored in the base's number type. The folder holds weights in the architecture
    of the base, processor and tokenizer with the pooled token, `ume.json`, `emb_token_ids` in the config, and the
    files that sentence-transformers loads it by.

    Args:
        trained: What training wrote: `trained/` of a run, or the run's own folder.
        out: Where to; missing or empty unless `replace` is set. It appears at once, whole, or not at all.
        card: Facts for `README.md`, or None for no card.
        replace: Put the new checkpoint in the place of what is there.

    Returns:
        `out`.

    Raises:
        InputError: When `trained` holds no finished run, or `out` is not empty.
        ModelError: When the base cannot be loaded.
        MissingExtra: When peft is needed and missing.
    """
    folder = trained / "trained" if (trained / "trained").is_dir() else trained
    if not (folder / RUN).is_file() or not any((folder / name).is_file() for name in (ADAPTER_FILE, "config.json")):
        raise InputError(f"{trained} holds no finished training", hint="train to the end first, or name another folder")
    facts = read_facts(folder)
    with atomic_folder(out, replace=replace) as part:
        model = _merged(folder, facts)
        model.save_pretrained(part)
        processor = _processor(folder)
        processor.save_pretrained(part)
        _declare_token(part, facts)
        write_spec(facts.spec, part)
        write_stock_modules(part, processor, facts.spec, dimension_of(model))
        if card is not None:
            write_card(card, part)
    return out


def dimension_of(model: Any) -> int:
    """Length of a vector: the width of the language model."""
    return int(model.config.get_text_config().hidden_size)


def _merged(folder: Path, facts: RunFacts) -> Any:
    import torch
    import transformers

    config = _load(transformers.AutoConfig, facts.base, facts.base_commit)
    stored = config.dtype or torch.float32
    generates = any("ForConditionalGeneration" in name for name in config.architectures or ())
    classes: Any = transformers
    model_class = classes.AutoModelForImageTextToText if generates else classes.AutoModel
    model = _load(model_class, facts.base, facts.base_commit, dtype=torch.float32)
    if facts.emb_token is not None and facts.emb_token >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(facts.emb_token + 1, mean_resizing=False)
    inner = model.model if generates else model
    if (folder / ADAPTER_FILE).is_file():
        inner = _with_adapters(inner, folder)
    else:
        inner = _load(classes.AutoModel, str(folder), None)
    if (folder / ROW_FILE).is_file():
        from safetensors.torch import load_file

        with torch.no_grad():
            inner.get_input_embeddings().weight[facts.emb_token] = load_file(folder / ROW_FILE)["weight"]
    if generates:
        model.model = inner
        model.tie_weights()
    else:
        model = inner
    if facts.emb_token is not None:
        model.config.emb_token_ids = [facts.emb_token]
    return model.to(stored)


def _with_adapters(inner: Any, folder: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtra("merging adapters needs peft", hint="pip install 'ume-retrieval[train]'") from error
    from ume_training.contrastive.lora import quiet_peft

    with quiet_peft():
        return PeftModel.from_pretrained(inner, str(folder)).merge_and_unload()


def _load(factory: Any, name: str, revision: str | None, **more: Any) -> Any:
    try:
        return factory.from_pretrained(name, revision=revision, **more)
    except (OSError, ValueError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"cannot load {name}: {first_line}", hint="export needs the weights that training started from"
        ) from error


def _processor(folder: Path) -> Any:
    import transformers

    classes: Any = transformers
    return classes.AutoProcessor.from_pretrained(folder)


def _declare_token(part: Path, facts: RunFacts) -> None:
    """Declare the pooled token in the config on disk, whatever the library wrote there."""
    path = part / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if facts.emb_token is not None:
        config["emb_token_ids"] = [facts.emb_token]
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
