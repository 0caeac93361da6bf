"""The real vLLM, in this process and behind real servers: the same items give the same vectors and the same T-CoTs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import cast

import numpy as np
import PIL.Image
import pytest
from vllm_server import Started, starting_servers, wait_for

from ume_retrieval import (
    Embedder,
    EmbedderSpec,
    Frames,
    InputError,
    LoadedItem,
    Reasoner,
    ReasonerSpec,
    ReasoningEmbedder,
    Sampling,
)
from ume_retrieval.chat import Chat, ImagePart, Message, TextPart
from ume_retrieval.engines.base import SupportsStreaming, tcot_sampling
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.load import LoadOptions, choose_engine
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.engines.server.embedder import ServerEmbedder
from ume_retrieval.engines.server.options import ServerOptions
from ume_retrieval.engines.server.reasoner import ServerReasoner
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.engines.vllm.embedder import VllmEmbedder
from ume_retrieval.engines.vllm.reasoner import VllmReasoner
from ume_retrieval.errors import IncompatibleModel, ServerError
from ume_retrieval.tcot import extract, parse, reasoner_chat, validate
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.tasks import TASKS

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here; `make test-vllm` brings it"),
    # vLLM's own start is not free of warnings, and what it leaves to the system at the end is its own affair.
    pytest.mark.filterwarnings("ignore"),
]

KEY = "k3y-of-a-test"
EMBEDDER, REASONER = resolve_embedder("ume-tiny"), resolve_reasoner("ume-tiny")
EMBEDDER_SPEC, REASONER_SPEC = cast("EmbedderSpec", EMBEDDER.spec), cast("ReasonerSpec", REASONER.spec)
GREEDY = Sampling(max_tokens=REASONER_SPEC.max_tokens)
HELD = replace(GREEDY, response_format="tcot")


@dataclass(frozen=True)
class Pair:
    """One engine's Embedder and Reasoner."""

    embedder: Embedder
    reasoner: Reasoner


def pair_on(engine: str, server: ServerOptions | None = None) -> Pair:
    options = LoadOptions(device="cpu", server=server)
    chosen = choose_engine(engine)
    return Pair(chosen.load_embedder(EMBEDDER, options), chosen.load_reasoner(REASONER, options))


@pytest.fixture(scope="module")
def transformers() -> Pair:
    return pair_on("transformers")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Started, Started]]:
    with starting_servers(REASONER.model, EMBEDDER.model, KEY, tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture(scope="module")
def vllm(started: tuple[Started, Started]) -> Pair:
    """Both engines in this process, which load while the servers start."""
    assert all(server.process.poll() is None for server in started)
    return pair_on("vllm")


@pytest.fixture(scope="module")
def addresses(started: tuple[Started, Started]) -> ServerOptions:
    for server in started:
        wait_for(server)
    reasoner, embedder = started
    return ServerOptions(reasoner.url, embedder.url, api_key=KEY, concurrency=16)


@pytest.fixture(scope="module")
def server(addresses: ServerOptions) -> Pair:
    return pair_on("server", addresses)


@pytest.fixture(scope="module", params=["vllm", "server"])
def other(request: pytest.FixtureRequest) -> Pair:
    """Each of the engines that has to agree with transformers."""
    return cast("Pair", request.getfixturevalue(request.param))


def draw(seeds: range) -> list[LoadedItem]:
    """Items of every task's two sides: texts, scenes, pages, clips, questions about scenes."""
    items: list[LoadedItem] = []
    for seed in seeds:
        rng = random.Random(seed)
        pairs = [task.draw(rng, LEVELS["default"]) for task in TASKS.values()]
        items += [sample.item(rng) for pair in pairs for sample in (pair.query, pair.positive)]
    return items


def odd_items() -> list[LoadedItem]:
    """What Shapes has not: an odd number of frames, uneven times, equal frames at other times, odd shapes, letters."""
    rng = np.random.default_rng(0)
    frames = [PIL.Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(3)]
    even = Frames(tuple(frames), (0.0, 1.0, 2.0), 3.0)
    uneven = Frames(tuple(frames), (10.0, 10.4, 15.2), 6.0)
    wide, tall = frames[0].resize((320, 33)), frames[1].resize((20, 90))
    return [
        LoadedItem(None, (), (even,), None, "even"),
        LoadedItem(None, (), (uneven,), None, "uneven"),
        LoadedItem("what moves?", (wide, tall), (even,), None, "mixed"),
        LoadedItem("caf\u00e9 \u4e2d\u6587 <|image_pad|> <emb>", (), (), "Find it.", "letters"),
    ]


@pytest.fixture(scope="module")
def items() -> list[LoadedItem]:
    return [*draw(range(3)), *odd_items()]


@pytest.fixture(scope="module")
def questions(items: list[LoadedItem]) -> list[Chat]:
    return [reasoner_chat(item, "query", REASONER_SPEC.prompts) for item in items]


@pytest.fixture(scope="module")
def chats(items: list[LoadedItem], questions: list[Chat], transformers: Pair) -> list[Chat]:
    """Every item directly, and with its trace and evidence."""
    written: list[Chat] = []
    for item, reply in zip(items, transformers.reasoner.generate(questions, GREEDY), strict=True):
        frames = sum(len(video.images) for video in item.videos)
        tcot = parse(reply.text, images=len(item.images), frames=frames or None)
        written.append(embedding_chat(EMBEDDER_SPEC, item, None, None))
        written.append(embedding_chat(EMBEDDER_SPEC, item, tcot, extract(tcot, item, 4)))
    return written


def test_they_are_what_an_engine_is(other: Pair, transformers: Pair) -> None:
    assert isinstance(other.embedder, Embedder)
    assert isinstance(other.reasoner, Reasoner)
    for mine, theirs in (
        (other.embedder.info, transformers.embedder.info),
        (other.reasoner.info, transformers.reasoner.info),
    ):
        assert (mine.name, mine.revision) == (theirs.name, theirs.revision)
    assert other.embedder.dimension == transformers.embedder.dimension


def test_vectors_agree(other: Pair, transformers: Pair, chats: list[Chat]) -> None:
    expected, found = transformers.embedder.embed(chats), other.embedder.embed(chats)
    cosines = np.sum(expected.vectors * found.vectors, axis=1)
    assert cosines.min() >= 0.999
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1.0, atol=1e-5)


def test_vectors_of_equal_frames_at_other_times_differ_as_they_should(other: Pair, transformers: Pair) -> None:
    even, uneven, *_ = (embedding_chat(EMBEDDER_SPEC, item, None, None) for item in odd_items())
    expected = transformers.embedder.embed([even, uneven]).vectors
    found = other.embedder.embed([even, uneven]).vectors
    assert expected[0] @ expected[1] < 0.9999
    assert found[0] @ found[1] == pytest.approx(expected[0] @ expected[1], abs=1e-4)


def test_pictures_are_not_resized_again(other: Pair, transformers: Pair) -> None:
    """This one is far above what the checkpoint's own processor would let through, 12 tokens."""
    picture = PIL.Image.fromarray(np.random.default_rng(1).integers(0, 255, (256, 192, 3), dtype=np.uint8))
    large: Chat = (
        Message("user", (ImagePart(picture), TextPart(EMBEDDER_SPEC.summary_prompt))),
        Message("assistant", (TextPart(EMBEDDER_SPEC.emb_token),)),
    )
    expected, found = transformers.embedder.embed([large]), other.embedder.embed([large])
    assert found.tokens > 48
    assert float(expected.vectors[0] @ found.vectors[0]) >= 0.999


def test_the_other_family_agrees(vllm: Pair, server: Pair, transformers: Pair, items: list[LoadedItem]) -> None:
    spec = EMBEDDER_SPEC.model_copy(update={"family": "qwen3-vl-embedding"})
    written = [embedding_chat(spec, item, None, None) for item in items]
    expected = TransformersEmbedder.from_pretrained(EMBEDDER.model, spec=spec, device="cpu").embed(written).vectors
    same_engine, same_server = cast("VllmEmbedder", vllm.embedder), cast("ServerEmbedder", server.embedder)
    for embedder in (
        VllmEmbedder(same_engine.engine, spec=spec),
        ServerEmbedder(same_server.server, info=same_server.info, spec=spec),
    ):
        assert np.min(np.sum(expected * embedder.embed(written).vectors, axis=1)) >= 0.999


def test_greedy_replies_agree(other: Pair, transformers: Pair, questions: list[Chat]) -> None:
    expected, found = transformers.reasoner.generate(questions, GREEDY), other.reasoner.generate(questions, GREEDY)
    equal = [mine.text == theirs.text for mine, theirs in zip(expected, found, strict=True)]
    assert np.mean(equal) >= 0.95  # ties fall as kernels round
    for mine, theirs, same in zip(expected, found, equal, strict=True):
        assert mine.prompt_tokens == theirs.prompt_tokens
        assert not same or (mine.completion_tokens, mine.finish) == (theirs.completion_tokens, theirs.finish)


def test_who_stops_reading_leaves_nothing_behind(vllm: Pair, questions: list[Chat]) -> None:
    reasoner = cast("VllmReasoner", vllm.reasoner)
    long = reasoner.replies(questions, Sampling(max_tokens=1000, temperature=1.0))
    position, first = next(long)
    long.close()
    assert reasoner.engine.llm.llm_engine.get_num_unfinished_requests() == 0
    [again] = reasoner.generate([questions[position]], Sampling(max_tokens=1000, temperature=1.0))
    assert again.text == first.text


def test_the_form_changes_no_reply_that_keeps_it(other: Pair, questions: list[Chat]) -> None:
    free, held = other.reasoner.generate(questions, GREEDY), other.reasoner.generate(questions, HELD)
    plain = [reply.text for reply in free if not parse(reply.text).problems]
    assert len(plain) > len(free) // 2
    assert (
        np.mean([mine.text == theirs.text for mine, theirs in zip(free, held, strict=True) if mine.text in plain])
        >= 0.95
    )


def test_held_to_the_form_every_trace_parses(other: Pair, items: list[LoadedItem], questions: list[Chat]) -> None:
    wild = Sampling(max_tokens=2000, temperature=2.0, seed=7)
    broken = {"free": 0, "tcot": 0}
    for form in ("free", "tcot"):
        replies = other.reasoner.generate(questions, replace(wild, response_format=form))
        for item, reply in zip(items, replies, strict=True):
            frames = sum(len(video.images) for video in item.videos)
            tcot = parse(reply.text, images=max(1, len(item.images)), frames=frames or None)
            names = {problem.name for problem in (*tcot.problems, *validate(tcot, item.modality))}
            broken[form] += bool(names - {"swapped_corners", "degenerate_box", "missing_boxes"})
    assert broken["tcot"] == 0
    assert broken["free"] > len(items) // 4  # the form does something: nearly half break without it


def test_traces_are_held_to_their_form_unless_told_otherwise(other: Pair) -> None:
    assert tcot_sampling(other.reasoner).response_format == "tcot"


def test_a_seed_repeats_a_reply_in_any_company(other: Pair, questions: list[Chat]) -> None:
    warm = Sampling(max_tokens=24, temperature=1.0, seed=3)
    together = [reply.text for reply in other.reasoner.generate(questions[:6], warm)]
    assert other.reasoner.generate(questions[3:4], warm)[0].text == together[3]
    again = [reply.text for reply in other.reasoner.generate([questions[0]] * 4, replace(warm, temperature=2.0))]
    assert len(set(again)) > 1


def test_what_is_too_long_is_refused_not_cut(other: Pair) -> None:
    endless = LoadedItem("red circle " * 3000, (), (), None, "id")
    with pytest.raises(InputError):
        other.embedder.embed([embedding_chat(EMBEDDER_SPEC, endless, None, None)])
    with pytest.raises(InputError):
        other.reasoner.generate([reasoner_chat(endless, "query", REASONER_SPEC.prompts)], GREEDY)


def test_an_input_without_the_pooled_token_is_refused(other: Pair) -> None:
    with pytest.raises(IncompatibleModel, match="<emb>"):
        other.embedder.embed([(Message("user", (TextPart("no place to pool"),)),)])


def test_no_chats_give_nothing(other: Pair) -> None:
    assert other.reasoner.generate([], GREEDY) == []
    assert other.embedder.embed([]).vectors.shape == (0, other.embedder.dimension)


def test_the_pipeline_runs_on_it_and_finds_the_same(other: Pair, transformers: Pair, items: list[LoadedItem]) -> None:
    texts = [item.text for item in items if item.text and not item.images and not item.videos][:8]
    results = [
        ReasoningEmbedder(pair.embedder, pair.reasoner).encode_query(texts, return_traces=True, strict=False)
        for pair in (transformers, other)
    ]
    known = [row for row in range(len(texts)) if all(np.isfinite(result.vectors[row]).all() for result in results)]
    assert len(known) >= len(texts) - 1
    cosines = np.sum(results[0].vectors[known] * results[1].vectors[known], axis=1)
    assert np.median(cosines) >= 0.999
    assert results[1].usage.reasoner_calls == len(set(texts))


def test_shared_beginnings_of_prompts_are_computed_once(vllm: Pair) -> None:
    """Texts begin with their prompt; what comes before the item's own words is one block of the cache and more."""
    reasoner = cast("VllmReasoner", vllm.reasoner)
    shared = "what all items share stands first. " * 40
    prompts = [
        reasoner.engine.prompt(chat)
        for chat in ((Message("user", (TextPart(f"{shared}{word}"),)),) for word in ("red", "blue"))
    ]
    from vllm import SamplingParams

    hits = [
        reasoner.engine.call("generate", [prompt], SamplingParams(max_tokens=1))[0].num_cached_tokens
        for prompt in prompts
    ]
    assert (hits[0] or 0) < (hits[1] or 0)
    assert hits[1] >= 128


def test_a_wrong_key_is_said_when_the_model_is_loaded(addresses: ServerOptions) -> None:
    with pytest.raises(ServerError, match="401"):
        ServerReasoner.connect(
            REASONER.model, spec=REASONER_SPEC, options=replace(addresses, api_key="another-key", attempts=1)
        )


def test_one_chat_that_the_server_refuses_does_not_lose_the_others(server: Pair) -> None:
    endless = LoadedItem("red circle " * 3000, (), (), None, "id")
    asked = [reasoner_chat(item, "query", REASONER_SPEC.prompts) for item in (*draw(range(1))[:2], endless)]
    assert isinstance(server.reasoner, SupportsStreaming)
    outcomes = sorted(server.reasoner.replies(asked, GREEDY), key=lambda one: one[0])
    assert [isinstance(outcome, InputError) for _, outcome in outcomes] == [False, False, True]
