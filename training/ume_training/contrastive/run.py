"""A whole contrastive run: from a start and data sets to a folder that `ume train export` turns into a checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ume_retrieval.checkpoint import EmbedderSpec, write_spec
from ume_retrieval.engines.base import Source
from ume_retrieval.engines.transformers.loading import choose_device, choose_dtype, fingerprint, load_checkpoint
from ume_retrieval.errors import InputError, TrainingError
from ume_retrieval.util.files import atomic_write
from ume_retrieval.util.progress import OnProgress
from ume_training.contrastive.lora import add_adapters, unfreeze
from ume_training.contrastive.plan import StepPlan, plan_run, steps_of
from ume_training.contrastive.records import (
    CHECKPOINTS,
    SKIPPED,
    WHOLE,
    Log,
    Skipped,
    drop_broken_checkpoints,
    newest_checkpoint,
    skipped_pairs,
)
from ume_training.contrastive.settings import FREE_TO_CHANGE, ContrastiveSettings
from ume_training.contrastive.start import Start, ensure_emb_token, resolve_start
from ume_training.run_folder import LOG, atomic_folder, changed_settings, last_line, make_folder

if TYPE_CHECKING:
    from ume_training.contrastive.encoder import Encoder
    from ume_training.data.sources import PairSource

__all__ = ["RunFacts", "Trained", "read_facts", "steps_of", "train_contrastive"]

RUN, TRAINED = "run.json", "trained"


class RunFacts(BaseModel):
    """Content of `run.json`: enough to resume, to export, and to write a model card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: ContrastiveSettings
    """As asked for."""
    spec: EmbedderSpec
    """How the trained Embedder wants its input."""
    base: str
    """Folder or hub id of the weights that training started from."""
    base_commit: str | None
    """Commit of the hub that the base was loaded at; None for a folder."""
    base_fingerprint: str
    """Commit, or digest of the folder's files."""
    emb_token: int | None
    """Id of the pooled token, None where the family pools the last one."""
    data: dict[str, int]
    """Pairs of each data set."""
    weights: dict[str, float] | None
    """Passes through a data set for each pass through the others, None for one through each."""
    steps: int
    """Optimizer steps of the whole run."""


@dataclass(frozen=True, slots=True)
class Order:
    """A training job with resolved start and steps.

    Attributes:
        settings: As asked for.
        sources: The data sets.
        weights: Passes through each for each pass through the others, None for one.
        plan: Every step.
        start: Where training starts.
        out: Folder of the run.
    """

    settings: ContrastiveSettings
    sources: Sequence[PairSource]
    weights: Mapping[str, float] | None
    plan: StepPlan
    start: Start
    out: Path


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run.

    Attributes:
        folder: Adapters or weights, processor and `ume.json`.
        steps: Optimizer steps taken in all.
        skipped: Pairs that were left out.
        figures: The last line of `log.jsonl`.
    """

    folder: Path
    steps: int
    skipped: int
    figures: Mapping[str, float]


def train_contrastive(
    settings: ContrastiveSettings,
    sources: Sequence[PairSource],
    out: Path,
    *,
    weights: Mapping[str, float] | None = None,
    on_progress: OnProgress | None = None,
    device: str = "auto",
) -> Trained:
    """Train an Embedder; a killed run resumes from its newest checkpoint in `out`.

    Started by `accelerate launch` or `torchrun`, every process trains its share. The folder then holds `run.json`,
    `log.jsonl`, `skipped.jsonl` where pairs were left out, `checkpoints/`, and at the end `trained/`.

    Args:
        settings: Everything that decides what is learned.
        sources: The data sets, names distinct.
        out: Folder of the run; empty, missing, or that of the same run.
        weights: Passes through a data set for each pass through the others, by name; see `plan_run`.
        on_progress: Receives progress after each step.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: When settings do not fit the data or the processes, or `out` holds another run.
        TrainingError: When pairs are broken and `on_error` says stop, nothing can be learned, or the loss is not
            a number.
        ModelError: When the start cannot be loaded.
        MissingExtra: When a package of the recipe is not installed.
    """
    start = resolve_start(settings.embedder, settings.spec)
    weights = weights or None
    plan = plan_run(sources, settings, weights)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch % processes:
        raise InputError(
            f"{settings.batch} pairs a step cannot be shared by {processes} processes", hint="make it a multiple"
        )
    make_folder(out)
    trained = out / TRAINED
    if not trained.is_dir():
        order = Order(settings, sources, weights, plan, start, out)
        _train(order, processes=processes, on_progress=on_progress, device=device)
    else:
        _go_on(Order(settings, sources, weights, plan, start, out))
    return Trained(trained, len(plan.steps), len(skipped_pairs(out)), last_line(out / LOG))


def read_facts(folder: Path) -> RunFacts:
    """Read `run.json`.

    Raises:
        InputError: When the folder holds no run of this kind.
    """
    try:
        return RunFacts.model_validate_json((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise InputError(f"{folder} holds no contrastive run", hint="name the folder that training wrote") from error


def _train(order: Order, *, processes: int, on_progress: OnProgress | None, device: str) -> None:
    from transformers import PrinterCallback, TrainingArguments, set_seed

    from ume_training.contrastive.shards import StepShards
    from ume_training.contrastive.trainer import ContrastiveTrainer, Recorder

    settings, out = order.settings, order.out
    # Looked at before the processes meet, so that none has written anything yet.
    if (out / RUN).is_file():
        _go_on(order)
    elif _is_main() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and holds no run", hint="name an empty folder")
    target = choose_device(device)
    compute = choose_dtype(settings.dtype, target)
    args = TrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        max_steps=len(order.plan.steps),
        per_device_train_batch_size=1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=str(compute) == "torch.bfloat16",
        seed=settings.seed,
        save_strategy="steps",
        save_steps=settings.checkpoint_every,
        save_total_limit=2,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        dataloader_num_workers=settings.workers,
        dataloader_prefetch_factor=1 if settings.workers else None,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        ddp_find_unused_parameters=settings.vision_tower == "trained",
        use_cpu=target.type == "cpu",
    )
    args._n_gpu = min(1, args.n_gpu)  # noqa: SLF001  # a process has one GPU; the public API cannot set this
    set_seed(settings.seed)
    encoder, processor, facts = _build(order, str(args.device))
    main = args.process_index == 0
    if main:
        _write_facts(facts, out)
    checkpoint = newest_checkpoint(out)
    log, skipped = Log(out), Skipped(out)
    if main:
        drop_broken_checkpoints(out)
        state = json.loads((checkpoint / WHOLE).read_text(encoding="utf-8")) if checkpoint else {}
        log.resume(int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0, state)
    shards = StepShards(
        plan=order.plan,
        sources=order.sources,
        processor=processor,
        spec=facts.spec,
        processes=processes,
        slots=settings.batch // processes,
        sub_batch=settings.sub_batch,
        mini_batch=settings.mini_batch,
        negatives=settings.negatives,
        pixel_dtype=compute,
    )
    trainer = ContrastiveTrainer(encoder, args, shards=shards, settings=settings, log=log, skipped=skipped)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Recorder(log, settings, trainer, on_progress))
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.accelerator.wait_for_everyone()
    if not any("loss" in figures for figures in log.lines()):
        pairs = sum(len(source) for source in order.sources)
        raise TrainingError(
            f"nothing was learned: {len(skipped_pairs(out))} of {pairs} pairs could not be used, "
            "and no two others came together",
            hint=f"see {out / SKIPPED}",
        )
    if main:
        with atomic_folder(out / TRAINED, replace=True) as part:
            encoder.save(part)
            processor.save_pretrained(part)
            write_spec(facts.spec, part)
            shutil.copy2(out / RUN, part / RUN)
    trainer.accelerator.wait_for_everyone()


def _build(order: Order, device: str) -> tuple[Encoder, Any, RunFacts]:
    """Load the model, mark the trainable weights, and describe the run."""
    from ume_training.contrastive.encoder import Encoder

    settings, start = order.settings, order.start
    # What learns is float32; a frozen base is kept as small as it is used.
    dtype = settings.dtype if settings.lora is not None else "float32"
    loaded = load_checkpoint(Source(start.model, start.revision, device, dtype), "AutoModel")
    spec = start.spec
    emb = ensure_emb_token(loaded.model, loaded.processor.tokenizer, spec) if spec.family == "embed-rl" else None
    dimension = int(loaded.model.config.get_text_config().hidden_size)
    if settings.matryoshka_dims:
        if max(settings.matryoshka_dims) > dimension:
            raise InputError(
                f"a vector of {dimension} components cannot be cut to {max(settings.matryoshka_dims)}",
                hint="lower matryoshka_dims",
            )
        spec = spec.model_copy(update={"matryoshka_dims": tuple(sorted({*settings.matryoshka_dims, dimension}))})
    backbone = loaded.model
    if settings.lora is None:
        unfreeze(backbone, settings.vision_tower)
    else:
        backbone = add_adapters(backbone, settings.lora)
    encoder = Encoder(
        backbone, emb.id if emb else None, learn_row=emb is not None and emb.is_new and settings.lora is not None
    )
    facts = RunFacts(
        settings=settings,
        spec=spec,
        base=start.model,
        base_commit=None if Path(start.model).is_dir() else loaded.info.revision,
        base_fingerprint=loaded.info.revision,
        emb_token=emb.id if emb else None,
        data={source.name: len(source) for source in order.sources},
        weights=None if order.weights is None else dict(order.weights),
        steps=len(order.plan.steps),
    )
    return encoder, loaded.processor, facts


def _write_facts(facts: RunFacts, out: Path) -> None:
    """Write `run.json`, or check that the run resumes from the same initial weights.

    Raises:
        InputError: When the start has changed since.
    """
    if not (out / RUN).is_file():
        _store(facts, out / RUN)
    elif read_facts(out).base_fingerprint != facts.base_fingerprint:
        raise InputError(f"{facts.base} has changed since the run began", hint="name another folder to start anew")


def _store(facts: RunFacts, path: Path) -> None:
    atomic_write(path, facts.model_dump_json(indent=2) + "\n", what="the settings")


def _is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _go_on(order: Order) -> None:
    """Raise unless the run of the folder is the one that is asked for; note where its start has moved to.

    Raises:
        InputError: Naming what differs.
    """
    facts, start = read_facts(order.out), Path(order.start.model)
    moved = facts.base != order.start.model and start.is_dir() and fingerprint(start) == facts.base_fingerprint
    free = {*FREE_TO_CHANGE, "embedder"} if moved else set(FREE_TO_CHANGE)
    differ = changed_settings(facts.settings.model_dump(), order.settings.model_dump(), free=free)
    drawn = None if order.weights is None else dict(order.weights)
    if facts.data != {source.name: len(source) for source in order.sources} or facts.weights != drawn:
        differ.append("the data")
    if differ:
        raise InputError(
            f"the folder holds a run with other settings: {', '.join(differ)}", hint="name another folder to start anew"
        )
    if moved and _is_main():
        # Export loads the weights of the base from there.
        there = facts.model_copy(update={"base": order.start.model, "settings": order.settings})
        for path in (order.out / RUN, order.out / TRAINED / RUN):
            if path.is_file():
                _store(there, path)
