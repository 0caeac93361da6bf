"""What goes in, in which order it comes out, and what each model is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import Clip, EmbedderSpec, Frames, Item, LoadedItem, ReasonerSpec, ReasoningEmbedder
from ume_retrieval.chat import Chat, ImagePart, TextPart, VideoPart, images_of, videos_of
from ume_retrieval.pipeline.loading import Input
from ume_retrieval.profiles import OWN
from ume_retrieval.tcot import DEFAULT_PROMPTS
from ume_retrieval.testing import PLAIN_PROMPTS, SMALL_BUDGET, FakeReasoner, HashEmbedder, fake_embedder

TRACE = "<thinking>Look. {cue}</thinking><rethink>Yes.</rethink><answer>a thing</answer>"


def picture(colour: str, size: tuple[int, int] = (64, 64)) -> PIL.Image.Image:
    return PIL.Image.new("RGB", size, colour)


def clip_frames(*colours: str) -> Frames:
    times = tuple(float(second) for second in range(len(colours)))
    return Frames(tuple(picture(colour) for colour in colours), times, float(len(colours)))


def saying(cue: str) -> FakeReasoner:
    return FakeReasoner(lambda chat: TRACE.replace("{cue}", cue))


def words_of(chat: Chat) -> list[str]:
    return [part.text for message in chat for part in message.parts if isinstance(part, TextPart)]


def test_rows_are_float32_unit_vectors_in_input_order() -> None:
    embedder = fake_embedder()
    texts = [f"thing number {number}" for number in range(5)]
    vectors = embedder.encode_corpus(texts)
    assert vectors.shape == (5, 64)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_array_equal(embedder.encode_corpus(text), vector)


@settings(max_examples=20, deadline=None)
@given(
    order=st.permutations(range(7)),
    chunk_items=st.integers(1, 9),
    reasoning=st.sampled_from(["always", "never"]),
)
def test_vectors_depend_neither_on_order_nor_on_chunks(order: list[int], chunk_items: int, reasoning: str) -> None:
    items: list[Input] = [
        "a red circle",
        picture("red"),
        "a train",
        Item("now in blue", (picture("green"),)),
        "!",
        "x",
        "a red circle",
    ]
    embedder = fake_embedder(chunk_items=chunk_items)
    shuffled = embedder.encode_query([items[position] for position in order], reasoning=reasoning)
    straight = fake_embedder().encode_query(items, reasoning=reasoning)
    np.testing.assert_array_equal(shuffled, straight[order])


@pytest.mark.parametrize(
    "single", ["a red circle", Item(text="a red circle"), picture("red"), clip_frames("red", "blue")]
)
def test_a_single_input_gives_one_vector_and_a_list_of_one_gives_one_row(single: Input) -> None:
    embedder = fake_embedder()
    vector = embedder.encode_query(single)
    assert vector.shape == (64,)
    np.testing.assert_array_equal(embedder.encode_query([single]), vector[None])
    assert len(embedder.encode_query(single, return_traces=True).traces) == 1


def test_nothing_in_gives_no_rows() -> None:
    embedder = fake_embedder()
    result = embedder.encode_query([], return_traces=True)
    assert result.vectors.shape == (0, 64)
    assert result.traces == result.failures == ()
    assert embedder.encode_corpus([], precision="binary").shape == (0, 8)


def test_never_asks_no_reasoner_and_returns_no_trace() -> None:
    reasoner = FakeReasoner()
    result = fake_embedder(reasoner=reasoner).encode_query(["a cat"], reasoning="never", return_traces=True)
    assert reasoner.calls == result.usage.reasoner_calls == 0
    assert result.traces == (None,)
    direct = fake_embedder(reasoner=None).encode_query(["a cat"], reasoning="never")
    np.testing.assert_array_equal(result.vectors, direct)


def test_encode_document_is_encode_corpus() -> None:
    embedder = fake_embedder()
    np.testing.assert_array_equal(embedder.encode_document(["a cat"]), embedder.encode_corpus(["a cat"]))


def test_equal_inputs_of_a_call_are_reasoned_once_even_across_chunks() -> None:
    reasoner = FakeReasoner()
    embedder = fake_embedder(reasoner=reasoner, chunk_items=2)
    result = embedder.encode_corpus(
        ["a cat", "a cat", "a dog", picture("red"), "a cat", picture("red")], return_traces=True
    )
    assert reasoner.calls == result.usage.reasoner_calls == 3
    assert result.usage.cached_traces == 3
    assert [trace is not None and trace.cached for trace in result.traces] == [False, True, False, False, True, True]
    np.testing.assert_array_equal(result.vectors[0], result.vectors[4])


def test_the_same_question_about_two_images_gets_two_traces() -> None:
    """The released code looks traces up by question text, so the second image would get the first one's."""
    result = fake_embedder().encode_query(
        [Item("what colour?", (picture("red"),)), Item("what colour?", (picture("blue"),))], return_traces=True
    )
    answers = [trace.tcot.answer for trace in result.traces if trace]
    assert answers == ["what colour red", "what colour blue"]


def test_files_of_one_name_get_their_own_traces(tmp_path: Path) -> None:
    """The released code looks traces up by file name, so equal names in two folders would share one."""
    paths = []
    for colour in ("red", "blue"):
        folder = tmp_path / colour
        folder.mkdir()
        picture(colour).save(folder / "cat.png")
        paths.append(folder / "cat.png")
    result = fake_embedder().encode_corpus([Item(images=(path,)) for path in paths], return_traces=True)
    assert [trace.tcot.answer for trace in result.traces if trace] == ["red", "blue"]


def test_a_copied_file_under_another_name_is_reasoned_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture("red").save(tmp_path / name)
    reasoner = FakeReasoner()
    fake_embedder(reasoner=reasoner).encode_corpus([Item(images=(tmp_path / name,)) for name in ("a.png", "b.png")])
    assert reasoner.calls == 1


def test_prompts_differ_by_side_and_target() -> None:
    reasoner = FakeReasoner(spec=ReasonerSpec(prompts=DEFAULT_PROMPTS, budget=SMALL_BUDGET))
    embedder = fake_embedder(reasoner=reasoner)
    embedder.encode_query("a cat jumps")
    embedder.encode_query("a cat jumps", target="video")
    embedder.encode_corpus("a cat jumps")
    assert len({words_of(chat)[-1] for chat in reasoner.chats}) == 3


def test_trace_and_evidence_stand_in_their_places_in_the_embedders_input() -> None:
    engine = HashEmbedder(spec=EmbedderSpec(family="embed-rl", profile=OWN, budget=SMALL_BUDGET))
    half = PIL.Image.new("RGB", (96, 96), "red")
    half.paste("blue", (48, 0, 96, 96))
    embedder = ReasoningEmbedder(engine, saying('{"bbox_2d": [[0, 0, 500, 1000], [500, 0, 1000, 1000]]}'))
    result = embedder.encode_corpus(Item("two halves", (half,)), return_traces=True)
    [user, assistant] = engine.chats[0]
    kinds = [type(part) for part in user.parts]
    assert kinds == [ImagePart, TextPart, TextPart, ImagePart, ImagePart, TextPart, TextPart]
    _, left, right = images_of((user,))
    assert [crop.getpixel((crop.width // 2, crop.height // 2)) for crop in (left, right)] == [(255, 0, 0), (0, 0, 255)]
    thinking, conclusion = words_of((user,))[1:3]
    assert thinking.startswith("<thinking>Look.")
    assert thinking.endswith("</thinking>")
    assert conclusion == "<rethink>Yes.</rethink><answer>a thing</answer>"
    assert assistant.parts == (TextPart("<emb>"),)
    [trace] = result.traces
    assert trace is not None
    assert [ref.kind for ref in trace.evidence] == ["crop", "crop"]


def test_no_more_evidence_than_the_embedder_takes() -> None:
    spec = EmbedderSpec(family="embed-rl", budget=SMALL_BUDGET.model_copy(update={"evidence_images": 1}))
    engine = HashEmbedder(spec=spec)
    cue = '{"bbox_2d": [[0, 0, 500, 1000], [500, 0, 1000, 1000]]}'
    result = ReasoningEmbedder(engine, saying(cue)).encode_corpus([picture("red")], return_traces=True)
    assert len(images_of(engine.chats[0])) == 2
    assert result.traces[0] is not None
    assert len(result.traces[0].evidence) == 1


def test_key_frames_are_counted_from_one() -> None:
    """The released code uses them 0-based though it prompts for 1-based numbers."""
    engine = HashEmbedder()
    embedder = ReasoningEmbedder(engine, saying('{"key_frames": [2]}'))
    [trace] = embedder.encode_corpus([clip_frames("red", "blue", "white")], return_traces=True).traces
    assert trace is not None
    assert [(ref.frame, ref.time_s) for ref in trace.evidence] == [(2, 1.0)]
    [crop] = images_of(engine.chats[0])
    assert crop.getpixel((0, 0)) == (0, 0, 255)


def write_video(path: Path, seconds: int = 4, fps: int = 10) -> Path:
    """A clip whose brightness tells the time: 50 per second."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for number in range(seconds * fps):
            level = round(number / fps * 50)
            frame = av.VideoFrame.from_image(PIL.Image.new("RGB", (128, 128), (level, level, level)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def samplings(reasoner_frames: int, embedder_frames: int) -> tuple[FakeReasoner, HashEmbedder]:
    def budget(frames: int) -> dict[str, object]:
        return {"video_fps": 8.0, "video_frames": frames}

    spec = ReasonerSpec(prompts=PLAIN_PROMPTS, budget=SMALL_BUDGET.model_copy(update=budget(reasoner_frames)))
    reasoner = FakeReasoner(lambda chat: TRACE.replace("{cue}", '{"key_frames": [4]}'), spec=spec)
    plain = EmbedderSpec(family="sentence-transformers", budget=SMALL_BUDGET.model_copy(update=budget(embedder_frames)))
    return reasoner, HashEmbedder(spec=plain)


@pytest.mark.parametrize("embedder_frames", [2, 4, 8])
def test_evidence_comes_from_the_frames_that_the_reasoner_saw(tmp_path: Path, embedder_frames: int) -> None:
    reasoner, engine = samplings(4, embedder_frames)
    item = Item(videos=(Clip(write_video(tmp_path / "clip.mp4")),))
    [trace] = ReasoningEmbedder(engine, reasoner).encode_corpus([item], return_traces=True).traces
    [seen], [shown] = videos_of(reasoner.chats[0]), videos_of(engine.chats[0])
    assert (len(seen.images), len(shown.images)) == (4, embedder_frames)
    assert trace is not None
    [ref] = trace.evidence
    assert (ref.frame, ref.time_s) == (4, seen.timestamps[3])
    [evidence] = images_of(engine.chats[0])
    last_seen = seen.images[3].getpixel((0, 0))
    assert evidence.getpixel((0, 0)) == last_seen


def test_one_decoding_serves_both_models_when_they_sample_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ume_retrieval.pipeline import loading as intake

    loads: list[object] = []
    real = intake.load

    def counting(*args: object, **kwargs: object) -> LoadedItem:
        loads.append(args)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(intake, "load", counting)
    item = Item(videos=(write_video(tmp_path / "clip.mp4"),))
    for embedder_frames, expected in ((4, 1), (8, 2)):
        loads.clear()
        reasoner, engine = samplings(4, embedder_frames)
        embedder = ReasoningEmbedder(engine, reasoner)
        embedder.encode_corpus([item, "words alone"])
        assert len(loads) == expected  # words are not decoded
        loads.clear()
        embedder.encode_corpus([item], reasoning="never")
        assert len(loads) == 1


def test_loaded_items_are_taken_as_they_are() -> None:
    loaded = LoadedItem("a cat", (picture("red"),), (), None, "c0ffee")
    result = fake_embedder().encode_corpus([loaded], return_traces=True)
    assert result.traces[0] is not None
    assert result.traces[0].content_id == "c0ffee"


def test_memory_is_bounded_by_pixels_not_only_by_items(monkeypatch: pytest.MonkeyPatch) -> None:
    from ume_retrieval.pipeline import loading as intake

    monkeypatch.setattr(intake, "CHUNK_PIXELS", 2 * 64 * 64)
    sizes: list[int] = []

    class Watching(HashEmbedder):
        def embed(self, chats: Sequence[Chat]):  # type: ignore[no-untyped-def]
            sizes.append(len(chats))
            return super().embed(chats)

    pictures = [PIL.Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in range(5)]
    ReasoningEmbedder(Watching()).encode_corpus(pictures, reasoning="never")
    assert sizes == [2, 2, 1]


def test_trace_reasons_without_embedding() -> None:
    engine, reasoner = HashEmbedder(), FakeReasoner()
    result = ReasoningEmbedder(engine, reasoner).trace(["a cat", "a dog"], "corpus")
    assert [trace.tcot.answer for trace in result.traces if trace] == ["a cat", "a dog"]
    assert engine.calls == result.usage.embedder_calls == 0
    assert result.usage.reasoner_calls == 2


def test_usage_tells_tokens_problems_and_seconds() -> None:
    embedder = fake_embedder(reasoner=FakeReasoner(lambda chat: "no tags at all"))
    usage = embedder.encode_query(["one two three", "four"], return_traces=True).usage
    assert (usage.items, usage.reasoner_calls, usage.embedder_calls) == (2, 2, 2)
    assert (usage.prompt_tokens, usage.completion_tokens) == (4, 8)
    assert usage.embedded_tokens == 4 + 2 * 4
    assert usage.trace_problems["missing_keywords"] == 2
    assert usage.seconds.keys() == {"load", "reason", "embed"}


def test_a_sound_trace_counts_no_problem() -> None:
    items: list[Input] = ["a cat", picture("red"), clip_frames("red", "blue")]
    result = fake_embedder().encode_corpus(items, return_traces=True)
    assert result.usage.trace_problems == {}


def test_progress_reaches_the_end_of_every_stage() -> None:
    seen: list[tuple[int, int, str]] = []
    embedder = fake_embedder(chunk_items=2)
    embedder.encode_corpus(
        ["a", "b", "", "d", "e"], strict=False, on_progress=lambda done, total, stage: seen.append((done, total, stage))
    )
    # Stages run side by side; each goes through the inputs in order, and none before the stage ahead of it.
    for stage in ("load", "reason", "embed"):
        assert [(done, total) for done, total, name in seen if name == stage] == [(2, 5), (4, 5), (5, 5)]
    for done in (2, 4, 5):
        assert [name for reached, _, name in seen if reached == done] == ["load", "reason", "embed"]


def test_info_names_models_and_prompts() -> None:
    embedder = fake_embedder()
    assert embedder.dimension == 64
    assert (embedder.info.embedder.name, embedder.info.prompt_version) == ("hash-embedder", "fake-1")
    assert fake_embedder(reasoner=None).info.reasoner is None


def test_videos_and_images_reach_both_models_in_order() -> None:
    engine, reasoner = HashEmbedder(), FakeReasoner()
    item = Item("what", (picture("red"), picture("blue")), (clip_frames("green"),), instruction="find")
    ReasoningEmbedder(engine, reasoner).encode_query(item)
    for chat in (reasoner.chats[0], engine.chats[0]):
        kinds = [type(part) for part in chat[-1].parts][:3]
        assert kinds == [ImagePart, ImagePart, VideoPart]
        assert [image.getpixel((0, 0)) for image in images_of(chat)[:2]] == [(255, 0, 0), (0, 0, 255)]
