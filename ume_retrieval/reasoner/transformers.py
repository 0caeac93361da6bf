"""The Reasoner on Hugging Face transformers: any image-text-to-text model, batched by token budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ume_retrieval.chat import Chat
from ume_retrieval.chat_inputs import ChatInputs
from ume_retrieval.checkpoint import ModelInfo, ReasonerSpec
from ume_retrieval.errors import InputError
from ume_retrieval.fitting import fit_chat
from ume_retrieval.loading import load_checkpoint, short_name
from ume_retrieval.packing import pack
from ume_retrieval.reasoner.base import Generation, Sampling

BATCH_TOKENS = 16_384
"""Most tokens of a batch, prompts and replies together, when nothing else is asked for."""


class TransformersReasoner:
    """Answers chats with `generate`.

    Args:
        model: A transformers model with `generate`, in evaluation mode.
        processor: Its processor.
        info: Which weights these are.
        spec: Prompts and visual budget.
        batch_tokens: Most tokens of a padded batch, replies included.
    """

    def __init__(
        self, model: Any, processor: Any, *, info: ModelInfo, spec: ReasonerSpec, batch_tokens: int = BATCH_TOKENS
    ) -> None:
        self.model = model
        self.info = info
        self.spec = spec
        self.batch_tokens = batch_tokens
        self._inputs = ChatInputs(processor, "left")

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        spec: ReasonerSpec,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> TransformersReasoner:
        """Load a folder or a hub id.

        Raises:
            ModelError: When it cannot be found or loaded.
        """
        loaded = load_checkpoint(name, "AutoModelForImageTextToText", revision=revision, device=device, dtype=dtype)
        info = ModelInfo(short_name(name), loaded.revision, "transformers")
        return cls(loaded.model, loaded.processor, info=info, spec=spec)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        """Answer each chat; the reply to `chats[i]` is at position i, whatever the batches were.

        Raises:
            InputError: When a chat is longer than the model's `max_prompt_tokens`; it is never cut silently.
        """
        fitted = [fit_chat(chat, self.spec.budget) for chat in chats]
        prompts = [self._inputs.count_tokens(chat) for chat in fitted]
        if prompts and max(prompts) > self.spec.max_prompt_tokens:
            raise InputError(
                f"a prompt takes {max(prompts)} tokens, the Reasoner reads {self.spec.max_prompt_tokens}",
                hint="shorten the text, or give fewer images",
            )
        lengths = [count + sampling.max_tokens for count in prompts]
        replies: dict[int, Generation] = {}
        for batch in pack(lengths, self.batch_tokens):
            answered = self._generate_batch([fitted[position] for position in batch], sampling)
            replies.update(zip(batch, answered, strict=True))
        return [replies[position] for position in range(len(chats))]

    def _generate_batch(self, chats: list[Chat], sampling: Sampling) -> list[Generation]:
        import torch

        tensors = {name: value.to(self.model.device) for name, value in self._inputs.tensors(chats).items()}
        settings: dict[str, Any] = {"max_new_tokens": sampling.max_tokens, "do_sample": sampling.temperature > 0}
        if sampling.temperature > 0:
            settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        else:
            # Checkpoints carry sampling defaults that greedy decoding would warn about.
            settings |= {"temperature": None, "top_p": None, "top_k": None}
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(sampling.seed)
            output = self.model.generate(**tensors, **settings)
        prompt_length = tensors["input_ids"].shape[1]
        prompts = tensors["attention_mask"].sum(1).tolist()
        return [
            self._read(row, prompt_tokens=int(count))
            for row, count in zip(output[:, prompt_length:].tolist(), prompts, strict=True)
        ]

    def _read(self, tokens: list[int], *, prompt_tokens: int) -> Generation:
        """Cut a row at its end token; what follows is padding."""
        end = self.model.generation_config.eos_token_id
        ends = set(end) if isinstance(end, list) else {end}
        stop = next((index for index, token in enumerate(tokens) if token in ends), None)
        text = self._inputs.tokenizer.decode(tokens[:stop], skip_special_tokens=True)
        count = len(tokens) if stop is None else stop + 1
        return Generation(text, prompt_tokens, count, "length" if stop is None else "stop")
