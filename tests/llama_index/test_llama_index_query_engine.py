"""The language model is shown crops and key frames, never whole files."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import PIL.Image
import pytest
from llama_index.core.base.llms.types import ImageBlock, TextBlock, VideoBlock
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_world import RecordingLLM, embedding, listening
from small_media import BLUE, GREEN, RED, clip, document, picture

from ume_llama_index import (
    EvidencePictures,
    LeftOutEvent,
    TCotRerank,
    UmeReader,
    UmeRetriever,
    evidence_query_engine,
)
from ume_qdrant import EdgeStore, Filter, index
from ume_retrieval.chat import Chat, images_of, videos_of
from ume_retrieval.testing import FakeReasoner, fake_embedder


def points_right(chat: Chat) -> str:
    """Boxes the right half of pictures, and names the second and last frame of videos."""
    if videos := videos_of(chat):
        cue = f'{{"key_frames": [2, {len(videos[0].images)}]}}'
    elif images_of(chat):
        cue = '{"bbox_2d": [[500, 0, 1000, 1000]]}'
    else:
        cue = '{"text_keywords": ["word"]}'
    return f"<thinking>t {cue}</thinking><rethink>r</rethink><answer>an answer</answer>"


def retriever(folder: Path, tmp_path: Path, **settings: object) -> UmeRetriever:
    from ume_llama_index import UmeEmbedding

    made = UmeEmbedding(embedder=fake_embedder(reasoner=FakeReasoner(points_right)))
    store = EdgeStore(tmp_path / "vectors", "things")
    index(made.embedder, store, folder, reasoning="always")
    return UmeRetriever(made, store, **settings)  # type: ignore[arg-type]


def decoded(block: ImageBlock) -> PIL.Image.Image:
    url = str(block.url)
    head, _, data = url.partition(",")
    assert head.startswith("data:image/"), url[:80]
    return PIL.Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def close(pixel: object, colour: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 30 for a, b in zip(pixel, colour, strict=True))  # type: ignore[call-overload]


def test_crops_of_an_image(tmp_path: Path) -> None:
    folder = tmp_path / "things"
    folder.mkdir()
    two = PIL.Image.new("RGB", (400, 100), RED)
    two.paste(BLUE, (200, 0, 400, 100))
    two.save(folder / "two.png")
    llm = RecordingLLM()
    response = evidence_query_engine(retriever(folder, tmp_path), llm).query("what is on the right?")
    assert str(response) == "seen"
    [image] = [decoded(block) for block in llm.blocks if isinstance(block, ImageBlock)]
    assert image.size == (200, 100)
    assert close(image.getpixel((5, 50)), BLUE)
    said = "\n".join(block.text for block in llm.blocks if isinstance(block, TextBlock))
    assert "answer: an answer" in said
    assert "part [500, 0, 1000, 1000] of 1000" in said
    assert "what is on the right?" in said
    [source] = response.source_nodes
    assert source.metadata["boxes"][0]["x1"] == 500


def test_key_frames_of_a_video_with_their_seconds(tmp_path: Path) -> None:
    folder = tmp_path / "things"
    folder.mkdir()
    clip(folder / "clip.mp4", 8, GREEN, BLUE)
    llm = RecordingLLM()
    evidence_query_engine(retriever(folder, tmp_path), llm).query("what happens?")
    frames = [decoded(block) for block in llm.blocks if isinstance(block, ImageBlock)]
    assert len(frames) == 2
    assert close(frames[0].getpixel((5, 5)), GREEN)
    assert close(frames[1].getpixel((5, 5)), BLUE)
    said = "\n".join(block.text for block in llm.blocks if isinstance(block, TextBlock))
    assert said.count("frame at ") == 2
    assert not any(isinstance(block, VideoBlock) for block in llm.blocks)


async def test_pages_text_and_rerank_together(tmp_path: Path) -> None:
    folder = tmp_path / "things"
    folder.mkdir()
    document(folder / "report.pdf", RED, GREEN)
    (folder / "notes.txt").write_text("the last train home")
    found = retriever(folder, tmp_path, group_by="point")
    llm = RecordingLLM()
    first = fake_embedder(reasoner=FakeReasoner(lambda _: "1"))
    rerank = TCotRerank(embedding=found.embedding, judge=first, top_n=3)
    response = await evidence_query_engine(found, llm, rerank=rerank).aquery("train")
    assert len(response.source_nodes) == 3
    assert len([block for block in llm.blocks if isinstance(block, ImageBlock)]) == 2
    said = "\n".join(block.text for block in llm.blocks if isinstance(block, TextBlock))
    assert "the last train home" in said
    assert "page: 1" in said


def test_without_evidence_a_small_whole_or_nothing(tmp_path: Path) -> None:
    made = embedding(reasoning="never")
    big = tmp_path / "big.png"
    PIL.Image.effect_noise((1600, 1200), 80).convert("RGB").save(big)
    film = clip(tmp_path / "a.mp4", 8, GREEN, BLUE)
    found = [NodeWithScore(node=node) for node in UmeReader().load_data([big, film])]
    shown = EvidencePictures(embedding=made, limit=3).postprocess_nodes(found)
    [whole], frames = (one.node.pictures for one in shown)  # type: ignore[attr-defined]
    image = PIL.Image.open(io.BytesIO(base64.b64decode(whole.data)))
    assert (image.format, image.width * image.height <= 768 * 768, image.width / image.height) == (
        "JPEG",
        True,
        pytest.approx(4 / 3, abs=0.01),
    )
    assert [frame.text for frame in frames] == sorted(frame.text for frame in frames)
    assert 2 <= len(frames) <= 3
    nothing = EvidencePictures(embedding=made, without_evidence="nothing").postprocess_nodes(found)
    assert [one.node.pictures for one in nothing] == [[], []]  # type: ignore[attr-defined]


def test_a_file_that_is_gone_is_named_and_never_handed_on(tmp_path: Path) -> None:
    gone = picture(tmp_path / "gone.png", RED)
    [node] = UmeReader().load_data(gone)
    gone.unlink()
    with listening() as ear:
        [shown, text] = EvidencePictures(embedding=embedding()).postprocess_nodes(
            [NodeWithScore(node=node, score=0.5), NodeWithScore(node=TextNode(text="words"))]
        )
    assert "cannot be read" in shown.node.get_content()
    assert shown.score == 0.5
    assert not any(isinstance(block, ImageBlock) for block in shown.node.get_content_blocks())
    assert text.text == "words"
    assert len(ear.of(LeftOutEvent)) == 1


def test_llama_index_alone_would_hand_whole_files_on(tmp_path: Path) -> None:
    """What the engine is for: the same retriever in LlamaIndex's own engine sends the file."""
    folder = tmp_path / "things"
    folder.mkdir()
    clip(folder / "clip.mp4", 4, GREEN)
    found = retriever(folder, tmp_path, where=Filter(kinds=("video",)))
    llm = RecordingLLM()
    RetrieverQueryEngine.from_args(found, llm=llm, multimodal=True).query(QueryBundle("what?"))
    assert any(isinstance(block, VideoBlock) for block in llm.blocks)
