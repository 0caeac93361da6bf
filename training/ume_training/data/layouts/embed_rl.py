"""The released Embed-RL-Train (ZoengHouNaam/Embed-RL-Train): MMEB-train and LLaVA-Hound rows with T-CoTs added.

Each file is one JSON array and one data set, named by the file. Image and document rows are those of MMEB-train with
`query_cot`, `pos_cot` and `error`; video rows hold `dataset_name`, `qry` and `pos`, each with `conversations` and
`video` (a list of frame pictures; `images/blank.jpg` means none), and the same `query_cot`, `pos_cot`, `error`.
In `llavahound_video_retrieval` the query is what "gpt" says in `qry` and the positive a video with what "human" says;
otherwise the query is a video with what "human" says and the positive what "gpt" says in `pos`. Frames are 2 a second,
and key frames of the T-CoTs count the listed ones.

The released generator shows the answer to the Reasoner for every second row, and the files do not say for which (rows
were filtered later): so every query with a T-CoT is marked `leaked`, which here means that it may be.

Taken from: ZoengHN/Embed-RL at 87b52f7, train/contrastive_learning/dataset/mmeb/mmeb_dataset.py and
llavahound_dataset.py, train_script/qwen3vl2b/weight_train_data_config.yaml,
data_pipe/train_cot_generate/*_single.py, and verl/utils/dataset/vlm2vec_dataset.py (a prefix `MMEB-train/` of frame
paths). The files on the hub themselves, and whether they lie in folders, were not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ume_retrieval.errors import InputError
from ume_training.data.layouts import mmeb
from ume_training.data.layouts.base import Found, Layout, Row, Source, found, item, read_each, text_of, under
from ume_training.data.layouts.llava_hound import turn
from ume_training.data.records import FramesRef
from ume_training.data.validation import PairError

BLANK = "images/blank.jpg"
RETRIEVAL = "llavahound_video_retrieval"


def read(source: Source) -> Iterator[Found]:
    """Read every JSON file of a folder, or one file."""
    for file in source.files(".json", ".jsonl"):
        dataset = source.dataset or re.sub(r"_\d+$", "", file.stem)
        if not source.leaves_out(dataset):
            yield from read_each(file, partial(_pair, source=source, dataset=dataset, file=file))


def _pair(row: Row, line: int, *, source: Source, dataset: str, file: Path) -> Found:
    convert = _video_pair if isinstance(row.get("qry"), dict) else mmeb.pair
    pair = convert(row, line, source=source, dataset=dataset, file=file)
    if isinstance(pair, PairError) or pair.record.query_tcot is None:
        return pair
    return replace(pair, record=pair.record.model_copy(update={"leaked": True}))


def _video_pair(row: Row, line: int, *, source: Source, dataset: str, file: Path) -> Found:
    media = source.media or source.root
    query, positive = _part(row, "qry"), _part(row, "pos")
    backwards = text_of(row, "dataset_name").startswith(RETRIEVAL) or file.stem.startswith(RETRIEVAL)
    asks, answers = ("gpt", "human") if backwards else ("human", "gpt")
    values: dict[str, Any] = {
        "id": source.row_name(file, line),
        "dataset": dataset,
        "query": item(text=turn(query, asks), videos=_video(query, media)),
        "positive": item(text=turn(positive, answers), videos=_video(positive, media)),
        "target": (turn(positive, answers) or None) if "_qa" in file.stem else None,
        "query_tcot": text_of(row, "query_cot").strip() or None,
        "positive_tcot": text_of(row, "pos_cot").strip() or None,
    }
    return found(file, line, values)


def _part(row: Row, side: str) -> Row:
    value = row.get(side)
    if not isinstance(value, dict):
        raise InputError(f"{side} is not an object")
    return value


def _video(part: Row, media: Path) -> tuple[FramesRef, ...]:
    listed = part.get("video") or []
    paths = [listed] if isinstance(listed, str) else listed
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise InputError("video is not a list of frames")
    frames = tuple(_found(media, path) for path in paths if path.strip() and path != BLANK)
    return (FramesRef(frames=frames),) if frames else ()


def _found(media: Path, path: str) -> str:
    """Frame paths start at the folder of all data, or at `MMEB-train` inside of it."""
    written = [under(media, candidate) for candidate in (path, path.removeprefix("MMEB-train/"))]
    return next((one for one in written if Path(one).is_file()), written[0])


LAYOUT = Layout("embed-rl-train", "ZoengHouNaam/Embed-RL-Train", "the paper's pairs with their T-CoTs", read)
