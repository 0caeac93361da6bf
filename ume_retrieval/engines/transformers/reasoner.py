"""The Reasoner on Hugging Face transformers: any image-text-to-text model, batched by token budget."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Self

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import ModelInfo, ReasonerSpec
from ume_retrieval.engines.base import Generation, Pretrained, Sampling, Source, StreamingReasoner
from ume_retrieval.engines.forks import home_of
from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.engines.transformers import unpadded
from ume_retrieval.engines.transformers.decoding import decode
from ume_retrieval.engines.transformers.loading import load_checkpoint
from ume_retrieval.engines.transformers.processor import ChatInputs, pack_padded
from ume_retrieval.errors import InputError

PADDED_TOKENS = 16_384
"""Most tokens of a padded batch, replies included, for models that are left to their own `generate`."""

SLOT_TOKENS = 65_536
"""Most tokens that have a place at the same time, prompts and replies together, when nothing else is asked for."""

SLOT_SHARE = 0.25
"""Share of free memory that keys and values may take, when nothing else is asked for."""


class TransformersReasoner(StreamingReasoner, Pretrained[ReasonerSpec]):
    """Answers chats: a Qwen3-VL in slots (see `decoding`), any other model with its own `generate`.

    Args:
        model: A transformers model with `generate`, in evaluation mode.
        processor: Its processor.
        info: Which weights these are.
        spec: Prompts and visual budget.
        batch_tokens: Most tokens that have a place at the same time, prompts and replies together; by default as many
            as free memory allows.
    """

    def __init__(
        self, model: Any, processor: Any, *, info: ModelInfo, spec: ReasonerSpec, batch_tokens: int | None = None
    ) -> None:
        self.model = model
        self.info = info
        self.spec = spec
        self._home = home_of(info.name, model.device.type)
        self._inputs = ChatInputs(processor, "left")
        self._in_slots = unpadded.is_supported(model) and _is_plain(model.generation_config)
        if self._in_slots:
            unpadded.prepare(model)
        self.batch_tokens = batch_tokens or (_slot_tokens(model) if self._in_slots else PADDED_TOKENS)

    @classmethod
    def _load(cls, source: Source, spec: ReasonerSpec) -> Self:
        loaded = load_checkpoint(source, "AutoModelForImageTextToText")
        return cls(loaded.model, loaded.processor, info=loaded.info, spec=spec)

    def replies(self, chats: Sequence[Chat], sampling: Sampling) -> Iterator[tuple[int, Generation]]:
        """Answer each chat, yielding every reply as soon as it is finished.

        Yields:
            Position of a chat and its reply.

        Raises:
            InputError: When a chat is longer than the model's `max_prompt_tokens`, or decoding should be constrained.
        """
        if sampling.response_format != "free":
            raise InputError(
                "engine 'transformers' cannot constrain decoding", hint="use response_format='free', or engine='vllm'"
            )
        if self._home is not None:
            self._home.require()
        written = self._inputs.write([fit_chat(chat, self.spec.budget) for chat in chats])
        longest = max((one.length for one in written), default=0)
        if longest > self.spec.max_prompt_tokens:
            raise InputError(
                f"a prompt takes {longest} tokens, the Reasoner reads {self.spec.max_prompt_tokens}",
                hint="shorten the text, or give fewer images",
            )
        if self._in_slots:
            ends = frozenset(self._ends())
            decoded = decode(self.model, written, self._inputs.rows, sampling, ends=ends, budget=self.batch_tokens)
            for position, prompt_tokens, tokens in decoded:
                yield position, self._read(tokens, prompt_tokens=prompt_tokens)
            return
        for batch in pack_padded([one.length + sampling.max_tokens for one in written], self.batch_tokens):
            answered = self._generate_batch([written[position].chat for position in batch], sampling)
            yield from zip(batch, answered, strict=True)

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
        ends = self._ends()
        stop = next((index for index, token in enumerate(tokens) if token in ends), None)
        text = self._inputs.tokenizer.decode(tokens[:stop], skip_special_tokens=True)
        count = len(tokens) if stop is None else stop + 1
        return Generation(text, prompt_tokens, count, "length" if stop is None else "stop")

    def _ends(self) -> set[int]:
        end = self.model.generation_config.eos_token_id
        return set(end) if isinstance(end, list) else {end}


def _is_plain(config: Any) -> bool:
    """Whether a checkpoint asks for nothing that only `generate` knows, such as a penalty for repetition."""
    penalties = (config.repetition_penalty, config.encoder_repetition_penalty)
    others = (config.no_repeat_ngram_size, config.bad_words_ids, config.suppress_tokens, config.min_new_tokens)
    return all(penalty in {None, 1.0} for penalty in penalties) and not any(others)


def _slot_tokens(model: Any) -> int:
    """How many tokens' keys and values fit into a share of the memory that is free now."""
    config = model.config.get_text_config()
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize
    fitting: int = int(SLOT_SHARE * _free_bytes(model.device)) // a_token
    return max(1024, min(SLOT_TOKENS, fitting))


def _free_bytes(device: Any) -> int:
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return 4 * 2**30
