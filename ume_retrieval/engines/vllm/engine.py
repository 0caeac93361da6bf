"""vLLM engines: how they are started, and chats as their prompts.

Several engines live in one process, one for each model, since an engine either generates, pools or scores. Each runs
its model in a process of its own, which starts anew from the main module: a script that loads this engine needs
`if __name__ == "__main__":` around what it does.
"""

from __future__ import annotations

import atexit
import math
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ume_retrieval.chat import Chat, images_of, videos_of
from ume_retrieval.checkpoint import ModelInfo, VisualBudget
from ume_retrieval.engines.base import Source
from ume_retrieval.engines.checkpoint_files import check_files, first_line, locate
from ume_retrieval.engines.forks import HomeProcess
from ume_retrieval.engines.memory import machine_bytes
from ume_retrieval.engines.transformers.loading import (
    choose_device,
    choose_dtype,
    known_revision,
    load_processor,
    short_name,
)
from ume_retrieval.engines.transformers.processor import ChatInputs, video_metadata
from ume_retrieval.errors import InputError, MissingExtra, ModelError

if TYPE_CHECKING:
    import torch

Runner: TypeAlias = Literal["generate", "pooling", "scoring"]
"""What an engine does: write replies, embed at the last token, or say there how much more likely "yes" is than "no"."""

POOLED_TOKENS = 32_768
"""Tokens of keys and values that an Embedder keeps: it embeds in one pass, so it needs those of running inputs only."""

CPU_SEQUENCES = 64
"""Longest sequences whose keys and values a Reasoner on a CPU keeps, memory permitting."""

CPU_SHARE = 0.25
"""Most of a machine's memory for keys and values."""

GPU_SHARE = 0.9
"""Most of what is free on a GPU when an engine starts; the rest is for kernels and fragments."""


def cache_bytes_per_token(config: Any, itemsize: int) -> int:
    """Bytes that keys and values of one token take in all layers.

    Args:
        config: The model's transformers config.
        itemsize: Bytes of a number.

    Example:
        >>> from transformers import Qwen3VLConfig
        >>> text = {"num_hidden_layers": 28, "num_key_value_heads": 8, "head_dim": 128}  # Qwen3-VL-2B
        >>> cache_bytes_per_token(Qwen3VLConfig(text_config=text), 2)
        114688
    """
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * width * itemsize)


def memory_settings(
    config: Any,
    device: torch.device,
    dtype: torch.dtype,
    *,
    runner: Runner,
    max_tokens: int,
) -> dict[str, Any]:
    """Settings of memory for vLLM.

    An Embedder takes its weights and a small fixed cache. A Reasoner on a GPU takes what is then left, since its speed
    grows with its cache: load the Embedder first, as `ReasoningEmbedder.from_pretrained` does.

    Args:
        config: The model's transformers config.
        device: Where it runs.
        dtype: In which numbers.
        runner: What the engine does.
        max_tokens: Longest prompt with its reply.
    """
    per_token = cache_bytes_per_token(config, dtype.itemsize)
    # vLLM deals its cache out in blocks of at most 128 tokens; the longest sequence has to fit, with one to spare.
    longest = math.ceil(max_tokens / 128 + 1) * 128
    pooled = max(POOLED_TOKENS, 2 * longest) * per_token
    if device.type != "cuda":
        wanted = pooled if runner != "generate" else CPU_SEQUENCES * longest * per_token
        least, most = longest * per_token, int(CPU_SHARE * _machine_bytes())
        return {"kv_cache_memory_bytes": max(least, min(wanted, most))}
    import torch

    free, total = torch.cuda.mem_get_info(device)
    settings: dict[str, Any] = {"gpu_memory_utilization": round(GPU_SHARE * free / total, 3)}
    return settings | ({"kv_cache_memory_bytes": pooled} if runner != "generate" else {})


def _machine_bytes() -> int:
    return machine_bytes() or 0


QUIET = {
    "VLLM_NO_USAGE_STATS": "1",  # nothing is sent anywhere
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout belongs to the command
}
"""Settings of vLLM that hold unless the environment says otherwise."""


class VllmEngine:
    """A model in vLLM, with the processor that writes its prompts.

    Args:
        source: The checkpoint.
        runner: What the engine does.
        budget: Visual budget; bounds the memory that vLLM reserves for pictures.
        max_tokens: Most tokens of a prompt and its reply.

    Raises:
        MissingExtra: When vLLM is not installed.
        ModelError: When the model cannot be found, loaded or fitted into memory.
    """

    def __init__(
        self,
        source: Source,
        *,
        runner: Runner,
        budget: VisualBudget,
        max_tokens: int,
    ) -> None:
        for setting, value in QUIET.items():
            os.environ.setdefault(setting, value)
        try:
            from vllm import LLM
        except ImportError as error:
            raise MissingExtra("engine 'vllm' needs vLLM", hint="pip install 'ume-retrieval[vllm]'") from error
        import transformers

        classes: Any = transformers
        name = source.name
        target = choose_device(source.device)
        number = choose_dtype(source.dtype, target)
        located = locate(name, source.revision)
        check_files(located.folder)
        self._home = HomeProcess(name)
        self.inputs = ChatInputs(load_processor(name, located), "right", special_tokens=runner == "pooling")
        try:
            self.config: Any = classes.AutoConfig.from_pretrained(located.folder)
            positions = int(getattr(self.config.get_text_config(), "max_position_embeddings", max_tokens))
            self.max_tokens = min(max_tokens, positions)
            settings: dict[str, Any] = {
                "load_format": "safetensors",  # other weights are pickles, which may run code
                "dtype": str(number).removeprefix("torch."),
                "max_model_len": self.max_tokens,
                "enforce_eager": target.type == "cpu",
                "enable_prefix_caching": True,
                "mm_processor_kwargs": processor_settings(budget),
                **memory_settings(self.config, target, number, runner=runner, max_tokens=self.max_tokens),
            }
            settings |= _runner_settings(runner)
            with visible_gpu(target.index):
                self.llm: Any = LLM(model=str(located.folder), **settings)
        except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"vLLM cannot load {name}: {first_line(error)}", hint="VLLM_LOGGING_LEVEL=INFO shows what it does"
            ) from error
        atexit.register(_end, weakref.ref(self.llm))
        known = known_revision(str(located.folder), located.commit)
        self.info = ModelInfo(short_name(name), known, "vllm")

    def prompt(self, chat: Chat, *, keep: Callable[[Sequence[int]], Sequence[int]] | None = None) -> dict[str, Any]:
        """Write a fitted chat as vLLM takes it: tokens with one placeholder a picture, and the pictures.

        Tokens, not text: how a text is cut is decided by the checkpoint's own tokenizer, here as in every engine.

        Args:
            chat: Pictures already fitted to the budget.
            keep: From token ids to the places of those that stay, ascending; None keeps all.

        Raises:
            UmeError: When `keep` does.
        """
        [tokens] = self.inputs.encode([self.inputs.render(chat)])
        if keep is not None:
            tokens = [tokens[place] for place in keep(tokens)]
        prompt: dict[str, Any] = {"prompt_token_ids": tokens}
        media: dict[str, Any] = {}
        if images := images_of(chat):
            media["image"] = images
        if videos := videos_of(chat):
            media["video"] = [
                (np.stack([np.asarray(image) for image in frames.images]), video_metadata(frames)) for frames in videos
            ]
        return prompt | ({"multi_modal_data": media} if media else {})

    def require_length(self, chats: Sequence[Chat], most: int, what: str) -> None:
        """Refuse chats that are too long; nothing is cut silently.

        Raises:
            InputError: Naming the longest chat.
        """
        longest = max((self.inputs.count_tokens(chat) for chat in chats), default=0)
        if longest > most:
            raise InputError(
                f"{what} takes {longest} tokens, the model reads {most}",
                hint="shorten the text, or give fewer images",
            )

    def call(self, method: str, *arguments: Any) -> Any:
        """Run one of vLLM's batch methods.

        Raises:
            ModelError: When vLLM refuses the prompts or has died.
        """
        self._home.require()
        with _own_errors():
            return getattr(self.llm, method)(*arguments, use_tqdm=False)

    def stream(self, prompts: Sequence[dict[str, Any]], parameters: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Continue all prompts at once; unfinished prompts are cancelled when the caller stops.

        Yields:
            Position of a prompt and vLLM's output, in the order in which they are finished.

        Raises:
            ModelError: When vLLM refuses the prompts or has died.
        """
        self._home.require()
        with _own_errors():
            names: list[str] = self.llm.enqueue(prompts, parameters, use_tqdm=False)
            # vLLM's name of a request, less what makes it unique, is how its output is called.
            waiting = {name.split("-")[0]: (position, name) for position, name in enumerate(names)}
            try:
                while waiting:
                    if not self.llm.llm_engine.has_unfinished_requests():
                        raise ModelError(f"vLLM lost {len(waiting)} requests", hint="try again")
                    for output in self.llm.llm_engine.step():
                        if output.finished and output.request_id in waiting:
                            position, _ = waiting.pop(output.request_id)
                            yield position, output
            finally:
                if waiting:
                    self.llm.llm_engine.abort_request([name for _, name in waiting.values()], internal=True)


def _runner_settings(runner: Runner) -> dict[str, Any]:
    if runner == "generate":
        return {}
    if runner == "pooling":
        from vllm.config import PoolerConfig

        last = PoolerConfig(seq_pooling_type="LAST")
        return {"runner": "pooling", "convert": "embed", "pooler_config": last}
    # vLLM makes a classifier of the head's two rows, and its probability is the sigmoid of their difference.
    overrides = {
        "architectures": ["Qwen3VLForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }
    return {"runner": "pooling", "hf_overrides": overrides}


def _end(llm: weakref.ref[Any]) -> None:
    """End an engine's processes before Python waits for them at its exit.

    vLLM does so from `weakref.finalize`, which comes too late in a program that had something to finalize (a temporary
    folder, say) before it knew of multiprocessing: it would never end.
    """
    if (running := llm()) is not None:
        running.llm_engine.engine_core.shutdown()


@contextmanager
def _own_errors() -> Iterator[None]:
    """VLLM's errors as ours.

    Raises:
        ModelError: When vLLM refuses the call or has died.
    """
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    try:
        yield
    except (ValueError, RuntimeError, EngineDeadError, EngineGenerateError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"vLLM failed: {first_line}", hint="VLLM_LOGGING_LEVEL=INFO shows what it does") from error


def processor_settings(budget: VisualBudget) -> dict[str, Any]:
    """Settings of Qwen3-VL's processor inside vLLM: pictures come fitted, and how large they can be.

    vLLM sets memory aside for the largest picture that its processor could let through; the checkpoint's own bound is
    far above the budget.

    Example:
        >>> processor_settings(VisualBudget())["images_kwargs"]
        {'do_resize': False, 'size': {'shortest_edge': 1024, 'longest_edge': 786432}}
    """
    image = max(budget.image_max_pixels, budget.crop_max_pixels)
    video = budget.video_max_pixels or budget.frame_max_pixels * budget.video_frames
    return {
        "images_kwargs": {"do_resize": False, "size": {"shortest_edge": 1024, "longest_edge": image}},
        "videos_kwargs": {
            "do_resize": False,
            "do_sample_frames": False,
            "cap_pixels_per_frame": False,
            "size": {"shortest_edge": 1024, "longest_edge": video},
        },
    }


@contextmanager
def visible_gpu(index: int | None) -> Iterator[None]:
    """Let the engine that starts inside see one GPU only, the index-th of those that this process sees."""
    if index is None:
        yield
        return
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = before.split(",") if before else [str(number) for number in range(index + 1)]
    os.environ["CUDA_VISIBLE_DEVICES"] = names[index]
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
