"""The loop: transformers' `Trainer` with a batch's loss over all processes, and records that survive a kill."""

from __future__ import annotations

import math
import resource
import time
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from ume_retrieval.errors import TrainingError
from ume_retrieval.util.progress import OnProgress, Progress
from ume_training.contrastive.encoder import Encoder
from ume_training.contrastive.loss import matryoshka_infonce
from ume_training.contrastive.records import Log, Skipped, mark_whole
from ume_training.contrastive.settings import ContrastiveSettings
from ume_training.contrastive.shards import Shard, StepShards


class ContrastiveTrainer(Trainer):
    """Computes a step's loss over the pairs of all processes; distribution, optimizer and resuming are the library's.

    Every process embeds its own slots, gathers everyone's vectors, puts its own, with their gradients, back among
    them, and computes the whole loss. Gradients are averaged over processes, so the loss is multiplied by their number:
    the sum is then the gradient that one process would have had on the whole batch.
    """

    def __init__(
        self,
        encoder: Encoder,
        args: TrainingArguments,
        *,
        shards: StepShards,
        settings: ContrastiveSettings,
        log: Log,
        skipped: Skipped,
    ) -> None:
        collate: Any = _only
        super().__init__(model=encoder, args=args, train_dataset=shards, data_collator=collate)
        self._encoder = encoder
        self._shards = shards
        self._settings = settings
        self._log = log
        self._skipped = skipped

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,  # noqa: FBT001, ARG002  # the library's signature
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> torch.Tensor:
        """Loss of one step, times the number of processes; its figures go to the log."""
        shard: Shard = inputs
        self._report(shard)
        slots, hard = len(shard.valid), self._shards.negatives
        vectors = model(shard.chunks, slots * (2 + hard))
        # One row a slot, whatever belongs to it, so that everything is gathered the same way.
        width = vectors.shape[1]
        by_slot = torch.cat(
            [
                vectors[: 2 * slots].view(2, slots, width).transpose(0, 1),
                vectors[2 * slots :].view(slots, hard, width),
            ],
            dim=1,
        )
        everyone = self._gather(by_slot, keeps_gradient=True)
        valid, hard_valid, ids, also = (
            self._gather(mask) for mask in (shard.valid, shard.negative_valid, shard.ids, shard.also)
        )
        losses, figures = [], dict[str, list[float]]()
        size = self._shards.sub_batch
        parts = self._shards.plan.steps[self.state.global_step]
        for number, part in enumerate(parts):
            rows = slice(number * size, (number + 1) * size)
            here = valid[rows]
            if here.sum() < 2:
                continue
            loss, of_part = self._sub_batch_loss(
                everyone[rows][here], ids[rows][here], hard_valid[rows][here], also[rows][here][:, here]
            )
            losses.append(loss)
            figures.setdefault("reasoned" if part.with_trace else "direct", []).append(of_part["in_batch_hit@1"])
        processes = self._shards.processes
        # Where a step is left without pairs, the zero keeps every process in step with the others.
        loss = torch.stack(losses).mean() if losses else 0.0 * by_slot.sum()
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}",
                hint="lower the learning rate, or start again from the last checkpoint with another seed",
            )
        counts = self._gather(torch.tensor([[shard.traced, shard.inputs]]))
        self._log.add(
            {
                **({"loss": loss.item()} if losses else {}),
                **{mode: sum(values) / len(values) for mode, values in figures.items()},
                "pairs": float(valid.sum()),
                "traced": float(counts[:, 0].sum()) / max(1.0, float(counts[:, 1].sum())),
            }
        )
        return loss * processes + 0.0 * by_slot.sum()

    def _sub_batch_loss(
        self, vectors: torch.Tensor, ids: torch.Tensor, hard_valid: torch.Tensor, also: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of pairs that are each other's negatives; vectors and ids are query, positive, hard negatives."""
        queries, items = vectors[:, 0], vectors[:, 1]
        # Equal contents are not negatives of each other: labels and questions repeat in many data sets.
        also = also | _same(ids[:, 1], ids[:, 1]) | _same(ids[:, 0], ids[:, 0])
        negatives = vectors[:, 2:][hard_valid]
        negative_ids = ids[:, 2:][hard_valid]
        right = also | torch.eye(len(also), dtype=torch.bool, device=also.device)
        # A hard negative of one query may answer another query; it is masked out there.
        negative_mask = (right.float() @ _same(ids[:, 1], negative_ids).float()) > 0
        return matryoshka_infonce(
            queries,
            items,
            also,
            self._settings.logit_scale,
            dims=self._settings.matryoshka_dims,
            negatives=negatives,
            negative_mask=negative_mask,
        )

    def _gather(self, mine: torch.Tensor, *, keeps_gradient: bool = False) -> torch.Tensor:
        """Return rows of all processes, slot by slot, in the order of the plan."""
        processes, device = self._shards.processes, self.args.device
        mine = mine.to(device)
        if processes == 1:
            return mine
        gathered: torch.Tensor = self.accelerator.gather(mine.detach()).view(processes, *mine.shape)
        if keeps_gradient:
            own = [mine if rank == self.args.process_index else gathered[rank] for rank in range(processes)]
            gathered = torch.stack(own)
        return gathered.transpose(0, 1).reshape(processes * len(mine), *mine.shape[1:])

    def _report(self, shard: Shard) -> None:
        self._skipped.add(shard.broken)
        if shard.broken and self._settings.on_error == "stop":
            first = shard.broken[0]
            raise TrainingError(
                f"pair {first.row} of {first.dataset} cannot be used: {first.message}",
                hint="correct it, or leave such pairs out with on_error: skip",
            )

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Leave the tensors where they are: each chunk goes to the device when its turn comes."""
        return inputs

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], None]:
        """Take shards without counting labels."""
        del device
        return [shard for _, shard in zip(range(num_batches), epoch_iterator, strict=False)], None

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the library's estimate knows neither pictures nor that chunks are computed twice."""
        del inputs
        return 0

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save:
            self._encoder.save(Path(output_dir or str(self.args.output_dir)), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        del model
        self._encoder.restore(Path(resume_from_checkpoint))


class Recorder(TrainerCallback):
    """Writes log lines, says which checkpoints are whole, and tells who watches.

    Args:
        log: Where figures gather.
        settings: Says how often a line is due.
        trainer: Whose processes wait for each other before a checkpoint is called whole.
        on_progress: Receives progress after each step, or None.
    """

    def __init__(
        self, log: Log, settings: ContrastiveSettings, trainer: ContrastiveTrainer, on_progress: OnProgress | None
    ) -> None:
        self._log = log
        self._settings = settings
        self._trainer = trainer
        self._on_progress = on_progress
        self._rate = 0.0
        self._since = time.monotonic()
        self._pairs = 0.0
        self._newest: dict[str, float] = {}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._since = time.monotonic()

    def on_pre_optimizer_step(self, *_: Any, **state: Any) -> None:
        """Note the learning rate that this step is taken with."""
        self._rate = state["optimizer"].param_groups[0]["lr"]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write a line when one is due."""
        del control
        self._pairs += self._settings.batch
        due = state.global_step % self._settings.log_every == 0 or state.global_step == state.max_steps
        if due and state.is_world_process_zero:
            elapsed = time.monotonic() - self._since
            self._newest = self._log.write(
                state.global_step,
                {
                    "learning_rate": self._rate,
                    "pairs_per_s": round(self._pairs / elapsed, 3),
                    "peak_memory_gb": round(_peak_memory(args.device) / 1e9, 3),
                },
            )
        if due:
            self._since, self._pairs = time.monotonic(), 0.0
        if self._on_progress is not None and state.is_world_process_zero:
            self._on_progress(Progress("contrastive", state.global_step, state.max_steps, figures=self._newest))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Call a checkpoint whole when every process has written its part."""
        del control
        self._trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}", self._log)


def _only(shards: list[Shard]) -> Shard:
    (shard,) = shards
    return shard


def _same(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return a mask of known and equal contents, shape (n, m)."""
    return (left[:, None] == right[None, :]) & (left[:, None] != 0)


def _peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
