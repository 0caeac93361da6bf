"""GRPO on TRL, taught about pairs, both sides, and items of any mix of text, images and video.

TRL 1.16 reads images but no video, and cannot mix rows with and without pictures in one batch. This trainer hands TRL
the prompts' tokens alone and adds the pixels itself wherever the model runs, through the `ChatInputs` of inference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ume_retrieval.chat import images_of, videos_of
from ume_retrieval.engines.transformers.processor import ChatInputs
from ume_training.contrastive.lora import lora_config
from ume_training.egrl.rollouts import Prompted, Prompts
from ume_training.egrl.sampler import RolloutOrder
from ume_training.egrl.scoring import Part, RolloutScores, Scorer
from ume_training.egrl.settings import EgrlSettings

if TYPE_CHECKING:
    import torch

PARTS: tuple[Part, ...] = ("format", "process", "outcome")

Observer = Callable[[int, Sequence[Prompted], Sequence[str], RolloutScores], None]
"""Receives the step, the prompts, the replies and their scores."""


class Rewards:
    """The parts of the reward as TRL's reward functions, computed together once a batch.

    Args:
        scorer: Computes them.
        prompts: Rows as prompts.
        observe: Receives every batch's rollouts and scores.
    """

    def __init__(self, scorer: Scorer, prompts: Prompts, observe: Observer) -> None:
        self._scorer, self._prompts, self._observe = scorer, prompts, observe
        self._seen: tuple[object, ...] = ()
        self._scores: RolloutScores | None = None

    def functions(self) -> list[Callable[..., list[float]]]:
        """Return one function a part, named as in the logs."""
        return [self._function(part) for part in PARTS]

    def _function(self, part: Part) -> Callable[..., list[float]]:
        def reward(
            *,
            completions: list[str],
            row: list[int],
            trainer_state: Any,
            log_metric: Callable[[str, float], None],
            **_: Any,
        ) -> list[float]:
            begun = time.monotonic()
            scores = self._score(row, completions, int(trainer_state.global_step))
            if part == PARTS[0]:  # the first part computes them all
                log_metric("egrl/score_seconds", time.monotonic() - begun)
                for name, value in scores.figures.items():
                    log_metric(f"egrl/{name}", value)
            rewards: list[float] = getattr(scores, part)
            return rewards

        reward.__name__ = part
        return reward

    def _score(self, rows: list[int], completions: list[str], step: int) -> RolloutScores:
        seen = (step, *rows, *completions)
        if self._scores is None or seen != self._seen:
            prompted = [self._prompts[row] for row in rows]
            self._scores = self._scorer.score(prompted, completions, step)
            self._seen = seen
            self._observe(step, prompted, completions, self._scores)
        return self._scores


def pixel_tensors(inputs: ChatInputs, prompted: Sequence[Prompted]) -> dict[str, torch.Tensor]:
    """Build the pixels of a batch, rows end to end, as a Qwen3-VL model takes them; equal rows are read once.

    Args:
        inputs: Builder of the tensors.
        prompted: One a row.
    """
    import torch

    kinds = (("pixel_values", "image_grid_thw", images_of), ("pixel_values_videos", "video_grid_thw", videos_of))
    read: dict[int, dict[str, Any]] = {}
    for one in prompted:
        if id(one) not in read:
            pictured = any(of(one.chat) for _, _, of in kinds)
            read[id(one)] = inputs.tensors([one.chat]) if pictured else {}
    batch: dict[str, torch.Tensor] = {}
    for pixels, grid, _ in kinds:
        for name in (pixels, grid):
            pieces = [read[id(one)][name] for one in prompted if name in read[id(one)]]
            if pieces:
                batch[name] = torch.cat(pieces)
    return batch


def make_trainer(
    settings: EgrlSettings,
    *,
    model: str,
    processor: Any,
    prompts: Prompts,
    rewards: Rewards,
    arguments: Any,
    callbacks: Sequence[Any],
) -> Any:
    """Build a `GRPOTrainer` over pairs.

    Args:
        settings: Of the run.
        model: Folder or hub id of the policy; TRL loads its reference from the same place.
        processor: The policy's processor.
        prompts: Rows of the training data.
        rewards: The reward's parts.
        arguments: A `GRPOConfig`.
        callbacks: Of transformers' trainer.
    """
    import torch
    from datasets import Dataset
    from trl import GRPOTrainer

    inputs = ChatInputs(processor, "left")
    image_token, video_token = processor.image_token_id, processor.video_token_id
    # A string a row is all that TRL needs: tokens and pixels are made from the row's number.
    data = Dataset.from_dict(
        {"prompt": [f"row {row}" for row in range(len(prompts.rows))], "row": list(range(len(prompts.rows)))}
    )

    def kinds_of_tokens(ids: torch.Tensor) -> torch.Tensor:
        """1 at image tokens, 2 at video tokens: what Qwen3-VL needs to place pictures in its rotary positions."""
        kinds: torch.Tensor = (ids == image_token).int() + 2 * (ids == video_token).int()
        return kinds

    class EgrlTrainer(GRPOTrainer):  # type: ignore[misc]  # trl is untyped
        """TRL's GRPO trainer with this library's pixel inputs."""

        _rows: torch.Tensor

        def _get_train_sampler(self, dataset: Any = None) -> RolloutOrder:  # noqa: ARG002
            return RolloutOrder(
                prompts.rows.sources,
                pairs=settings.pairs,
                rollouts=settings.rollouts,
                reads=self.args.steps_per_generation,
                seed=settings.seed,
            )

        def _send_telemetry(self) -> None:
            """None: nothing about a run leaves the machine unless its user sends it."""

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """None from here: export writes a card with data, settings and scores."""

        def _generate_and_score_completions(self, batch: list[dict[str, Any]]) -> dict[str, Any]:
            self._rows = torch.tensor([example["row"] for example in batch])
            output: dict[str, Any] = super()._generate_and_score_completions(batch)
            output["rows"] = self._rows
            return output

        def _tokenize_prompts(self, _: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            prompted = [prompts[row] for row in self._rows.tolist()]
            ids = {id(one): inputs.tensors([one.chat])["input_ids"][0] for one in prompted}
            fields: dict[str, Any] = dict(pixel_tensors(inputs, prompted))
            if fields:
                fields["mm_token_type_ids"] = [kinds_of_tokens(ids[id(one)]).tolist() for one in prompted]
            return [ids[id(one)].tolist() for one in prompted], None, fields

        def _generate_single_turn(
            self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, **options: Any
        ) -> Any:
            if self.use_vllm:  # takes images with the tokens; videos were refused at the start
                images = [images_of(prompts[row].chat) or None for row in self._rows.tolist()]
            begun = time.monotonic()
            made = super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations, **options)
            self._metrics["train"]["egrl/generate_seconds"].append(time.monotonic() - begun)
            return made

        def _compute_loss(self, policy: Any, batch: dict[str, Any]) -> Any:
            self._rows = batch["rows"]
            return super()._compute_loss(policy, batch)

        def _get_per_token_logps_and_entropies(
            self,
            policy: Any,
            input_ids: Any,
            attention_mask: Any,
            logits_to_keep: int,
            batch_size: int | None = None,
            **options: Any,
        ) -> tuple[Any, Any, Any]:
            parts = []
            backbone = _backbone(self.accelerator.unwrap_model(policy))
            size = batch_size or len(input_ids)
            for start in range(0, len(input_ids), size):
                piece = slice(start, start + size)
                fields = pixel_tensors(inputs, [prompts[row] for row in self._rows[piece].tolist()])
                fields = {name: value.to(input_ids.device) for name, value in fields.items()}
                if fields:
                    fields["mm_token_type_ids"] = kinds_of_tokens(input_ids[piece])
                parts.append(
                    super()._get_per_token_logps_and_entropies(
                        _on_replies(policy, backbone, fields, logits_to_keep),
                        input_ids[piece],
                        attention_mask[piece],
                        logits_to_keep,
                        **options,
                    )
                )
            logps, entropies, losses = zip(*parts, strict=True)
            return (
                torch.cat(logps),
                None if entropies[0] is None else torch.cat(entropies),
                None if losses[0] is None else torch.stack(losses).mean(),
            )

    # A generated picture token would require pixels that do not exist.
    never = [image_token, video_token]
    vllm = settings.generation != "transformers"
    arguments.generation_kwargs = {"logit_bias": dict.fromkeys(never, -100.0)} if vllm else {"suppress_tokens": never}
    return EgrlTrainer(
        model=model,
        reward_funcs=rewards.functions(),
        args=arguments,
        train_dataset=data,
        processing_class=processor,
        peft_config=None if settings.lora is None else lora_config(settings.lora, task_type="CAUSAL_LM"),
        callbacks=list(callbacks),
    )


def _on_replies(policy: Any, backbone: Any, fields: Mapping[str, Any], kept: int) -> Callable[..., Any]:
    """Wrap the policy with pixels, and with a head that scores the replies' positions alone.

    TRL's own head scores every position without Triton, prompts too; on a CPU at full size that took most of
    a step.
    """

    def call(*, labels: torch.Tensor, **given: Any) -> Any:
        cut = backbone.register_forward_hook(lambda *made: _before_replies(made[-1], kept))
        try:
            return policy(**given, **fields, shift_labels=labels[:, -kept:])
        finally:
            cut.remove()

    return call


def _before_replies(output: Any, kept: int) -> Any:
    """Keep the states that predict a reply's tokens, each one position before its token."""
    output.last_hidden_state = output.last_hidden_state[:, -kept - 1 : -1]
    return output


def _backbone(model: Any) -> Any:
    """Return the layers below the head, under an adapter too."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model
