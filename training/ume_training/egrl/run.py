"""An EG-RL run from settings and data to a trained Reasoner, resumable after any kill."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ume_retrieval.checkpoint import EmbedderSpec, ReasonerSpec, write_spec
from ume_retrieval.engines.base import Sampling
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.engines.transformers.loading import fingerprint
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_retrieval.errors import InputError, MissingExtra, TrainingError
from ume_retrieval.util.files import atomic_write
from ume_retrieval.util.progress import OnProgress, Progress
from ume_training.contrastive.lora import freeze_vision
from ume_training.data.sources import PairSource
from ume_training.egrl.collapse import Collapse, CollapseMonitor, read_figures, resume_monitor
from ume_training.egrl.process import load_discriminator
from ume_training.egrl.rewards import format_reward
from ume_training.egrl.rollouts import Prompted, Prompts
from ume_training.egrl.sampler import PairRows, plan_steps, spread_rows
from ume_training.egrl.samples import write_samples
from ume_training.egrl.scoring import RolloutScores, Scorer
from ume_training.egrl.settings import EgrlSettings
from ume_training.egrl.trainer import Rewards, make_trainer
from ume_training.run_folder import LOG, append_lines, atomic_folder, changed_settings, make_folder

SETTINGS, RESULT, ROLLOUTS = "settings.json", "reasoner", "rollouts"


@dataclass(frozen=True, slots=True)
class EgrlResult:
    """Result of a run.

    Attributes:
        reasoner: Folder of the trained Reasoner; an adapter's weights are merged in.
        steps: Optimizer steps.
        sampled_format: Share of sampled replies in form before training, None for a run that was resumed.
    """

    reasoner: Path
    steps: int
    sampled_format: float | None


def run_egrl(
    settings: EgrlSettings,
    sources: Sequence[PairSource],
    folder: Path,
    *,
    on_progress: OnProgress | None = None,
) -> EgrlResult:
    """Train a Reasoner by GRPO with the frozen Embedder as its reward (arXiv 2602.13823, section 3.3).

    The same folder goes on where a killed run stopped, and ends where an uninterrupted one would have.

    Args:
        settings: Of the run.
        sources: Data sets; a step takes its pairs from one.
        folder: Holds settings, checkpoints, `log.jsonl`, sample rollouts, and at the end `reasoner/`.
        on_progress: Called after each step.

    Returns:
        Where the trained Reasoner is.

    Raises:
        MissingExtra: Without TRL.
        InputError: When settings and data do not fit together, or the folder holds a run with other settings or data.
        TrainingError: When too few sampled replies follow the form, or training collapsed; the message names the last
            good checkpoint.
    """
    _require_trl()
    make_folder(folder)
    _claim(folder, settings, sources)
    with warnings.catch_warnings():
        # TRL and transformers warn of each other's deprecated names, which users cannot fix.
        warnings.simplefilter("ignore", FutureWarning)
        return _run(settings, sources, folder, on_progress)


def _run(
    settings: EgrlSettings, sources: Sequence[PairSource], folder: Path, on_progress: OnProgress | None
) -> EgrlResult:
    steps = count_steps(settings, sources)
    policy = resolve_reasoner(settings.reasoner)
    spec = policy.spec
    if not isinstance(spec, ReasonerSpec):
        raise InputError(f"{settings.reasoner} is not a Reasoner", hint="name a preset, a hub id or a folder")
    prompts = Prompts(PairRows(tuple(sources)), spec)
    arguments = _arguments(settings, folder, steps)
    scorer = _scorer(settings, prompts.rows)
    last = _last_checkpoint(folder)
    sampled = None
    if last is None:
        sampled = _check_form(settings, policy.model, policy.revision, spec, prompts)
    watch = resume_monitor(settings.watch, folder, int(last.name.split("-")[1]) if last else 0)
    trainer = _build(
        settings,
        policy.model,
        watch=watch,
        prompts=prompts,
        scorer=scorer,
        arguments=arguments,
        folder=folder,
        on_progress=on_progress,
    )
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    watcher = next(c for c in trainer.callback_handler.callbacks if hasattr(c, "collapse"))
    if watcher.collapse is not None:
        raise _collapsed(watcher.collapse, watch.good_step, folder)
    return EgrlResult(_save(trainer, spec, folder / RESULT), steps, sampled)


def count_steps(settings: EgrlSettings, sources: Sequence[PairSource]) -> int:
    """Optimizer steps of a run.

    Raises:
        InputError: When no data set fills a step.
    """
    an_epoch = len(plan_steps(sources, settings.pairs, settings.seed))
    if not an_epoch:
        raise InputError(
            f"a step takes {settings.pairs} pairs of one data set, and none has so many",
            hint="give more data or set fewer `pairs`",
        )
    return settings.steps or settings.epochs * an_epoch


def _require_trl() -> None:
    try:
        import peft
        import trl  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"EG-RL needs {error.name}", hint="pip install 'ume-retrieval[train]'") from error
    del peft


def _claim(folder: Path, settings: EgrlSettings, sources: Sequence[PairSource]) -> None:
    """Record the run's settings, or check that the folder's run resumes with the same ones.

    Raises:
        InputError: When it was begun with something else, and has learned from it.
    """
    path = folder / SETTINGS
    names = {role: getattr(settings, role) for role in ("reasoner", "embedder", "discriminator")}
    now: dict[str, Any] = {
        **settings.model_dump(mode="json"),
        "data": {source.name: len(source) for source in sources},
        "models": {role: fingerprint(Path(name)) for role, name in names.items() if Path(name).is_dir()},
    }
    learned = _last_checkpoint(folder) is not None or (folder / RESULT).is_dir()
    if learned and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        # Model folders are compared by content and not by path, so that a run may move.
        if differ := changed_settings(before, now, free=now["models"]):
            raise InputError(
                f"{folder} holds a run with other settings: {', '.join(differ)}",
                hint="name another folder, or delete it",
            )
    atomic_write(path, json.dumps(now, indent=2) + "\n", what="the settings")


def _arguments(settings: EgrlSettings, folder: Path, steps: int) -> Any:
    import torch
    from accelerate import PartialState
    from trl import GRPOConfig

    processes = PartialState().num_processes
    rollouts = settings.pairs * 2 * settings.rollouts
    if rollouts % (processes * settings.micro_batch):
        raise InputError(
            f"{rollouts} rollouts a step do not divide into micro-batches of {settings.micro_batch} "
            f"on {processes} processes",
            hint="choose a `micro_batch` that divides pairs x 2 x rollouts / processes",
        )
    gpu = torch.cuda.is_available()
    vllm: dict[str, Any] = {}
    if settings.generation != "transformers":
        vllm = {"use_vllm": True, "vllm_mode": "colocate" if settings.generation == "vllm" else "server"}
        vllm |= (
            {"vllm_gpu_memory_utilization": settings.vllm_memory}
            if settings.generation == "vllm"
            else {"vllm_server_base_url": settings.server}
        )
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=rollouts // processes // settings.micro_batch,
        num_generations=settings.rollouts,
        max_completion_length=settings.max_tokens,
        temperature=settings.temperature,
        beta=settings.kl,
        epsilon=settings.epsilon,
        loss_type="grpo",
        scale_rewards="group",
        reward_weights=[settings.weights.format, settings.weights.process, settings.weights.outcome],
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_steps,
        max_grad_norm=settings.max_grad_norm,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=settings.dtype == "bfloat16" or (settings.dtype == "auto" and gpu),
        use_cpu=not gpu,
        # A micro-batch without pictures leaves the vision tower without gradients.
        ddp_find_unused_parameters=not settings.freeze_vision,
        remove_unused_columns=False,
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=2,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        seed=settings.seed,
        **vllm,
    )


def _scorer(settings: EgrlSettings, rows: PairRows) -> Scorer:
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()
    found = resolve_embedder(settings.embedder)
    if not isinstance(found.spec, EmbedderSpec) or found.spec.family == "sentence-transformers":
        raise InputError(
            f"the reward needs an Embedder that reads T-CoTs; {settings.embedder} does not",
            hint="name an Embedder of the embed-rl or qwen3-vl-embedding family",
        )
    embedder = TransformersEmbedder.from_pretrained(found.model, spec=found.spec, revision=found.revision)

    def gather(local: list[Any]) -> list[Any]:
        return list(gather_object(local)) if state.num_processes > 1 else local

    return Scorer(
        settings, embedder, load_discriminator(settings), rows.also_answers, gather=gather, rank=state.process_index
    )


def _check_form(
    settings: EgrlSettings, model: str, revision: str | None, spec: ReasonerSpec, prompts: Prompts
) -> float:
    """Return the share of sampled replies in form, over rows spread through the data.

    Raises:
        TrainingError: When it is below the bound: GRPO from such a Reasoner collapses.
    """
    rows = len(prompts.rows)
    count = min(settings.watch.sampled_replies, rows)
    asked: list[Prompted] = [prompts[row] for row in spread_rows(rows // 2, count)]
    reasoner = TransformersReasoner.from_pretrained(model, spec=spec, revision=revision)
    replies = reasoner.generate(
        [one.chat for one in asked],
        Sampling(max_tokens=settings.max_tokens, temperature=settings.temperature, seed=settings.seed),
    )
    share = sum(
        format_reward(reply.text, one.modality, images=one.images, frames=one.frames)
        for reply, one in zip(replies, asked, strict=True)
    ) / len(asked)
    if share < settings.watch.min_sampled_format:
        raise TrainingError(
            f"only {share:.0%} of {count} sampled replies follow the form "
            f"(at least {settings.watch.min_sampled_format:.0%} must)",
            hint="train the Reasoner on T-CoTs first; GRPO collapses from here",
        )
    return share


def _build(
    settings: EgrlSettings,
    model: str,
    *,
    watch: CollapseMonitor,
    prompts: Prompts,
    scorer: Scorer,
    arguments: Any,
    folder: Path,
    on_progress: OnProgress | None,
) -> Any:
    import transformers
    from transformers import PrinterCallback, TrainerCallback

    class Watcher(TrainerCallback):
        """Writes the log, reports progress, and stops at a collapse."""

        def __init__(self) -> None:
            self.collapse: Collapse | None = None

        def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            del args
            logs = given.get("logs")
            if not logs or "reward" not in logs:
                return
            figures = read_figures(logs)
            if state.is_world_process_zero:
                append_lines(folder / LOG, [{"step": state.global_step, **figures}])
                if on_progress:
                    on_progress(Progress("egrl", state.global_step, state.max_steps, figures=figures))
            self.collapse = self.collapse or watch.look(state.global_step, figures)
            if self.collapse:
                control.should_training_stop = True
                control.should_save = False

    def observe(step: int, prompted: Sequence[Prompted], texts: Sequence[str], scores: RolloutScores) -> None:
        if step % settings.samples_every == 0 and scorer.rank == 0:
            write_samples(folder / ROLLOUTS, step, prompted=prompted, texts=texts, scores=scores, settings=settings)

    classes: Any = transformers
    processor = classes.AutoProcessor.from_pretrained(model, padding_side="left")
    if settings.generation != "transformers":
        _refuse_videos(prompts)
    trainer = make_trainer(
        settings,
        model=model,
        processor=processor,
        prompts=prompts,
        rewards=Rewards(scorer, prompts, observe),
        arguments=arguments,
        callbacks=[Watcher()],
    )
    trainer.remove_callback(PrinterCallback)
    if settings.freeze_vision and settings.lora is None:
        freeze_vision(trainer.model)
    return trainer


def _refuse_videos(prompts: Prompts) -> None:
    for row in range(0, len(prompts.rows), 2):
        if any(prompts[side].frames for side in (row, row + 1)):
            raise InputError(
                "vLLM inside TRL takes no videos, and the data has some",
                hint="set generation: transformers, or leave the data sets with videos out",
            )


def _last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end."""
    # transformers writes the state last; a folder without it was cut off by a kill.
    for path in folder.glob("checkpoint-*"):
        if not (path / "trainer_state.json").is_file():
            shutil.rmtree(path)
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return found[-1] if found else None


def _collapsed(collapse: Collapse, good_step: int, folder: Path) -> TrainingError:
    steps = sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
    good = [step for step in steps if step <= good_step]
    rest = (
        f"the last good checkpoint is {folder / f'checkpoint-{good[-1]}'}" if good else "no good checkpoint was saved"
    )
    return TrainingError(
        f"training collapsed at step {collapse.step}: {collapse.reason}; {rest}",
        hint="lower the learning rate, raise kl, or start from a Reasoner that follows the form when sampled",
    )


def _save(trainer: Any, spec: ReasonerSpec, out: Path) -> Path:
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        with atomic_folder(out, replace=True) as part:
            model.save_pretrained(part)
            trainer.processing_class.save_pretrained(part)
            write_spec(spec, part)
    trainer.accelerator.wait_for_everyone()
    return out
