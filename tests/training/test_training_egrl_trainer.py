"""The trainer's log-probabilities are those of the model on what the Reasoner saw: text, pictures, pages and clips."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor

from ume_retrieval import ReasonerSpec
from ume_retrieval.engines.registry import resolve_reasoner
from ume_retrieval.engines.transformers.processor import ChatInputs
from ume_training.data.sources import LoadedPair
from ume_training.egrl import EgrlSettings
from ume_training.egrl.rollouts import Prompts
from ume_training.egrl.run import _arguments, _scorer
from ume_training.egrl.sampler import PairRows
from ume_training.egrl.trainer import Rewards, make_trainer
from ume_training.shapes.pairs import ShapesSource

TASKS = ("image_classification", "video_question", "page_retrieval", "text_to_image")
SETTINGS = EgrlSettings(
    reasoner="ume-tiny", embedder="ume-tiny", discriminator="words", rollouts=2, pairs=4, micro_batch=4, max_tokens=100
)


class OnePairATask:
    """A batch of it has text, images, a page and a clip."""

    name = "one a task"

    def __init__(self) -> None:
        self.parts = [ShapesSource(task, "questions", seed=3, group_size=1, count=1) for task in TASKS]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> LoadedPair:
        return self.parts[index][0]

    def group(self, index: int) -> str:
        return str(index)

    def also_answers(self, query: int, positive: int) -> bool:
        return query == positive


Stepped = tuple[Any, Prompts, dict[str, Any]]
"""A trainer, its prompts, and what it made of one batch of rollouts."""


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Stepped:
    return step(SETTINGS, tmp_path_factory.mktemp("trainer"))


def step(settings: EgrlSettings, folder: Path) -> Stepped:
    policy = resolve_reasoner("ume-tiny")
    assert isinstance(policy.spec, ReasonerSpec)
    prompts = Prompts(PairRows((OnePairATask(),)), policy.spec)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", FutureWarning)
        patch.setattr("trl.trainer.base_trainer.send_telemetry", lambda **_: pytest.fail("something was sent"))
        trainer = make_trainer(
            settings,
            model=str(policy.model),
            processor=AutoProcessor.from_pretrained(policy.model, padding_side="left"),
            prompts=prompts,
            rewards=Rewards(_scorer(settings, prompts.rows), prompts, lambda *_: None),
            arguments=_arguments(settings, folder, 1),
            callbacks=[],
        )
        trainer.model.train()
        rows = [row for row in range(2 * len(TASKS)) for _ in range(2)]
        made = trainer._generate_and_score_completions([{"prompt": f"row {row}", "row": row} for row in rows])
    assert made["rows"].tolist() == rows
    return trainer, prompts, made


def test_log_probabilities_are_those_of_a_direct_forward_pass(stepped: Stepped) -> None:
    trainer, prompts, made = stepped
    ids = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)
    mask = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)
    trainer._rows = made["rows"]
    model = trainer.model.eval()
    with torch.no_grad():
        found, _, _ = trainer._get_per_token_logps_and_entropies(
            model, ids, mask, made["completion_ids"].shape[1], batch_size=4
        )
    torch.testing.assert_close(found, made["ref_per_token_logps"], rtol=0, atol=1e-4)
    inputs = ChatInputs(trainer.processing_class, "right")
    seen: set[str] = set()
    for place, row in enumerate(made["rows"].tolist()):
        seen.add(prompts[row].modality)
        length = int(made["completion_mask"][place].sum())
        written = made["completion_ids"][place][:length]
        direct = directly(model, inputs, prompts, row, written)
        torch.testing.assert_close(found[place, :length], direct, rtol=0, atol=1e-4)
    assert len(seen) >= 3


def test_pixels_matter_to_the_log_probabilities(stepped: Stepped) -> None:
    trainer, prompts, made = stepped
    model, inputs = trainer.model.eval(), ChatInputs(trainer.processing_class, "right")
    # The query of the first task is a picture; what was written about it is less likely of another picture.
    other = next(row for row in range(2, 2 * len(TASKS)) if prompts[row].images and row != 0)
    written = made["completion_ids"][0][: int(made["completion_mask"][0].sum())]
    own, foreign = (directly(model, inputs, prompts, row, written).sum() for row in (0, other))
    assert own > foreign + 1


def test_a_policy_never_writes_the_token_of_a_picture(tmp_path: Path) -> None:
    # At this temperature every token of the vocabulary is as likely as any other.
    trainer, _, made = step(SETTINGS.model_copy(update={"temperature": 1e4}), tmp_path)
    processor = trainer.processing_class
    written = made["completion_ids"][made["completion_mask"].bool()]
    assert len(written.unique()) > len(processor.tokenizer) // 2
    assert not {processor.image_token_id, processor.video_token_id} & set(written.tolist())


def directly(
    model: Any, inputs: ChatInputs, prompts: Prompts, row: int, written: torch.Tensor | Sequence[int]
) -> torch.Tensor:
    """Log-probabilities of written tokens after a prompt, without TRL."""
    tensors = inputs.tensors([prompts[row].chat])
    tokens = torch.as_tensor(written)[None]
    ids = torch.cat([tensors.pop("input_ids"), tokens], 1)
    kinds = tensors.pop("mm_token_type_ids", None)
    if kinds is not None:
        tensors["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(tokens, dtype=kinds.dtype)], 1)
    tensors["attention_mask"] = torch.ones_like(ids)
    with torch.no_grad():
        logits = model(input_ids=ids, **tensors).logits[0].log_softmax(-1)
    before = ids.shape[1] - tokens.shape[1] - 1
    return logits[before:-1].gather(1, tokens[0][:, None])[:, 0]
