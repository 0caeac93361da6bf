"""LLaVA-Hound (ShareGPTVideo/train_video_and_instruction): conversations about videos that are folders of frames.

Rows of the JSONL files hold `id`, `video` (name of a folder of frame pictures) and `conversations`, a list of turns
`{"from": "human" | "gpt", "value": …}`; the human turn carries the placeholder `<video>`. From one file three data
sets can be made: a video and an instruction to its caption, a caption to its video, a video and a question to its
answer. Frames count as 2 a second.

Taken from: the loaders TIGER-AI-Lab/VLM2Vec at 6e1e1d4, src/data/dataset/llavahound_dataset_caption.py,
llavahound_dataset_qa.py and src/utils/vision_utils/vision_utils.py (fields, modes, natural order of frame names), and
experiments/public/train/train_video.yaml (`train_300k` holds the frames). The rate of the frames is not given there; 2
a second is the rate of arXiv 2602.13823. The instructions that those loaders add are wording and were not taken over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ume_retrieval.errors import InputError
from ume_training.data.layouts.base import Found, Layout, Row, Source, found, item, read_each, text_of
from ume_training.data.records import FramesRef

Mode: TypeAlias = Literal["caption", "retrieval", "qa"]
"""Target of a query: a video's caption, the video of a caption, or an answer about a video."""

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FRAMES = "frames"


def read(source: Source, mode: Mode) -> Iterator[Found]:
    """Read JSONL files; folders of frames are in `source.media`, by default `frames` next to the file."""
    for file in source.files(".jsonl"):
        media = source.media or file.parent / FRAMES
        yield from read_each(file, partial(_convert, source=source, mode=mode, file=file, media=media))


def _convert(row: Row, line: int, *, source: Source, mode: Mode, file: Path, media: Path) -> Found:
    video = FramesRef(frames=frames_of(media / text_of(row, "video")))
    asked, answer = turn(row, "human"), turn(row, "gpt")
    query, positive = item(text=asked, videos=(video,)), item(text=answer)
    if mode == "retrieval":
        query, positive = item(text=answer), item(videos=(video,))
    values: dict[str, Any] = {
        # The rows' own ids repeat where a video is asked about more than once.
        "id": source.row_name(file, line),
        "dataset": source.dataset or f"llava-hound/{mode}",
        "query": query,
        "positive": positive,
        "target": answer if mode == "qa" else None,
    }
    return found(file, line, values)


def turn(row: Row, speaker: str) -> str:
    """Return a speaker's first turn, without the placeholder.

    Raises:
        InputError: When the row holds no conversation.
    """
    turns = row.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(one, dict) for one in turns):
        raise InputError("conversations is not a list of turns")
    said: Row = next((one for one in turns if one.get("from") == speaker), {})
    return re.sub(r"<(?:video|image)>", "", text_of(said, "value")).strip()


def frames_of(folder: Path) -> tuple[str, ...]:
    """Return pictures of a folder in natural order, so that frame 10 comes after frame 9.

    Raises:
        InputError: If it does not exist.
    """
    if not folder.is_dir():
        raise InputError(f"there is not a folder of frames {folder}", hint="name the folder above it with --media")
    pictures = sorted((file for file in folder.iterdir() if file.suffix.lower() in PICTURES), key=_natural)
    if not pictures:
        raise InputError(f"the folder {folder} holds no pictures")
    return tuple(str(file.resolve()) for file in pictures)


def _natural(file: Path) -> list[tuple[int, str]]:
    """Digits by value, the rest by letters."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", file.name)]


HUB = "ShareGPTVideo/train_video_and_instruction"
LAYOUTS = (
    Layout("llava-hound-caption", HUB, "video to its caption", partial(read, mode="caption")),
    Layout("llava-hound-retrieval", HUB, "caption to its video", partial(read, mode="retrieval")),
    Layout("llava-hound-qa", HUB, "video and question to answer", partial(read, mode="qa")),
)
