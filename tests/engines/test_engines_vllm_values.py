"""What the vLLM engine decides by itself, without vLLM: memory, GPUs, seeds, forms, and what is missing."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from ume_retrieval import InputError, LoadedItem, MissingExtra, ModelInfo, ReasonerSpec, Sampling, VisualBudget
from ume_retrieval.chat import Chat, ImagePart, Message, TextPart
from ume_retrieval.engines.base import chat_seeds
from ume_retrieval.engines.load import ENGINES, LoadOptions, choose_engine
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_retrieval.engines.vllm import engine as vllm_engine
from ume_retrieval.engines.vllm.engine import memory_settings, processor_settings, visible_gpu
from ume_retrieval.inputs import Modality
from ume_retrieval.pipeline.trace_cache import trace_key
from ume_retrieval.tcot import pattern, reasoner_chat
from ume_retrieval.tcot.pattern import chat_pattern
from ume_retrieval.testing import PLAIN_PROMPTS
from ume_training.shapes.pair.architecture import REASONER_SPEC

CPU = torch.device("cpu")
GIB = 2**30


def words(text: str) -> Chat:
    return (Message("user", (TextPart(text),)),)


def test_every_engine_has_its_name() -> None:
    assert list(ENGINES) == ["transformers", "vllm", "server"]


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_hint_carries_the_install_command() -> None:
    engine = choose_engine("vllm")
    with pytest.raises(MissingExtra) as caught:
        engine.load_reasoner(resolve_reasoner("ume-tiny"), LoadOptions(device="cpu"))
    assert caught.value.hint == "pip install 'ume-retrieval[vllm]'"
    with pytest.raises(MissingExtra):
        engine.load_embedder(resolve_embedder("ume-tiny"), LoadOptions(device="cpu"))


# Memory.


def test_on_a_cpu_the_longest_sequence_always_fits_and_the_machine_keeps_most(monkeypatch: pytest.MonkeyPatch) -> None:
    config = AutoConfig.from_pretrained(resolve_reasoner("ume-tiny").model)
    per_token = 2 * 4 * 2 * 32 * 4  # keys and values, layers, heads, width, bytes
    for memory in (GIB // 1024, GIB, 64 * GIB):
        monkeypatch.setattr(vllm_engine, "_machine_bytes", lambda memory=memory: memory)
        settings = memory_settings(config, CPU, torch.float32, runner="generate", max_tokens=2208)
        taken = settings["kv_cache_memory_bytes"]
        assert taken >= 2208 * per_token
        assert taken <= max(memory // 4, 2500 * per_token)
    pooled = memory_settings(config, CPU, torch.float32, runner="pooling", max_tokens=2048)
    assert pooled == {"kv_cache_memory_bytes": 32_768 * per_token}


def test_on_a_gpu_the_embedder_takes_a_fixed_cache_and_the_reasoner_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = AutoConfig.from_pretrained(resolve_reasoner("ume-tiny").model)
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (80 * GIB, 80 * GIB))
    first = memory_settings(config, gpu, torch.bfloat16, runner="pooling", max_tokens=2048)
    assert first == {"gpu_memory_utilization": 0.9, "kv_cache_memory_bytes": 32_768 * 2 * 4 * 2 * 32 * 2}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60 * GIB, 80 * GIB))
    second = memory_settings(config, gpu, torch.bfloat16, runner="generate", max_tokens=2208)
    assert second == {"gpu_memory_utilization": 0.675}


def test_an_engine_sees_its_gpu_only_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with visible_gpu(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with visible_gpu(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
    with visible_gpu(None):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"


def test_vllm_sends_nothing_anywhere_and_prints_nothing_on_stdout() -> None:
    assert vllm_engine.QUIET["VLLM_NO_USAGE_STATS"] == "1"
    assert vllm_engine.QUIET["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"


def test_the_processor_may_let_through_whatever_the_budget_does() -> None:
    budget = VisualBudget(image_max_pixels=4096, crop_max_pixels=8192, frame_max_pixels=2048, video_frames=8)
    settings = processor_settings(budget)
    assert settings["images_kwargs"]["size"]["longest_edge"] == 8192
    assert settings["videos_kwargs"]["size"]["longest_edge"] == 16_384
    assert not settings["images_kwargs"]["do_resize"]
    assert not settings["videos_kwargs"]["do_resize"]


# Forms and seeds.


@pytest.mark.parametrize(("images", "expected"), [(0, "text"), (1, "image"), (3, "image")])
def test_a_chat_is_held_to_the_form_of_its_modality(images: int, expected: Modality) -> None:
    import PIL.Image

    picture = ImagePart(PIL.Image.new("RGB", (32, 32)))
    chat: Chat = (Message("user", (*[picture] * images, TextPart("hi"))),)
    assert chat_pattern(chat) == pattern(expected, images=max(1, images))


def test_transformers_refuses_a_form_that_it_cannot_hold(random_pair: Path) -> None:
    reasoner = TransformersReasoner.from_pretrained(str(random_pair / "reasoner"), spec=REASONER_SPEC, device="cpu")
    item = LoadedItem("a red circle", (), (), None, "id")
    with pytest.raises(InputError, match="form"):
        reasoner.generate([reasoner_chat(item, "query", REASONER_SPEC.prompts)], Sampling(response_format="tcot"))


def test_the_form_is_part_of_a_traces_key_only_when_it_is_held() -> None:
    def key(sampling: Sampling) -> str:
        return trace_key(
            content_id="1",
            side="query",
            target=None,
            reasoner=ModelInfo("model", "1", "vllm"),
            prompts=PLAIN_PROMPTS,
            budget=ReasonerSpec(prompts=PLAIN_PROMPTS).budget,
            sampling=sampling,
        )

    assert key(Sampling()) == key(Sampling(response_format="free"))
    assert key(Sampling()) != key(Sampling(response_format="tcot"))
    assert "form" not in Sampling().identity()


@given(st.lists(st.sampled_from(["red", "blue", "green", "\ud800"]), max_size=12), st.integers())
def test_seeds_are_a_chats_own_and_differ_within_a_call(texts: list[str], seed: int) -> None:
    seeds = chat_seeds([words(text) for text in texts], seed)
    assert all(0 <= one < 2**31 for one in seeds)
    assert len(set(seeds)) == len(texts)
    for text in set(texts):
        alone = chat_seeds([words(text)], seed)
        assert alone == [seeds[texts.index(text)]]
