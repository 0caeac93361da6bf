"""MMEB-V2's image tasks: rows with an instruction, a text and a picture, and a list of targets whose first is right.

Columns as in `ziyjiang/MMEB_Test_Instruct`: `qry_inst`, `qry_text`, `qry_img_path`, `tgt_inst`, `tgt_text`,
`tgt_img_path`; pictures are in `image-tasks/`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ume_eval.layouts.building import Building
from ume_eval.layouts.media import picture
from ume_eval.rows import find_rows, read_rows
from ume_eval.samples import EvalTask, Sample
from ume_eval.tasks import Task

IMAGE_TOKEN = "<|image_1|>"
"""Stands in the rows' texts where the picture belongs; families put it there themselves."""


def image_to_text(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """A picture, mostly with a question, and texts: classification, question answering, captions."""
    building = Building(task, limit)
    for row in building.rows(read_rows(find_rows(folder, task))):
        with building.query_row():
            values = row.columns
            sample = _query(values, folder / task.media)
            texts = _list(values["tgt_text"])
            for text in texts:
                building.candidate(text, partial(Sample, text))
            building.query(sample, {texts[0]: 1.0}, texts)
    return building.done()


def text_to_image(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """A text and pictures, with captions in some tasks."""
    return _to_images(task, folder, limit)


def image_to_image(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """A picture with words and pictures: composed retrieval, grounding."""
    return _to_images(task, folder, limit)


def _to_images(task: Task, folder: Path, limit: int | None) -> EvalTask:
    building = Building(task, limit)
    media = folder / task.media
    for row in building.rows(read_rows(find_rows(folder, task))):
        with building.query_row():
            values = row.columns
            sample = _query(values, media)
            told = _words(values["tgt_inst"])
            pairs = list(zip(_list(values["tgt_img_path"]), _list(values["tgt_text"]), strict=True))
            # One picture may be a target under several captions (EDIS, RefCOCO-Matching): both make the name.
            names = [f"{path}:{caption.strip()}" for path, caption in pairs]
            for name, (path, caption) in zip(names, pairs, strict=True):
                building.candidate(name, partial(_target, media, path, _words(caption), told))
            building.query(sample, {names[0]: 1.0}, names)
    return building.done()


def _query(values: dict[str, Any], media: Path) -> Sample:
    path = values.get("qry_img_path") or ""
    images = (picture(media, str(path)),) if path else ()
    return Sample(_words(values["qry_text"]), images, instruction=_words(values["qry_inst"]))


def _target(media: Path, path: str, caption: str | None, told: str | None) -> Sample:
    return Sample(caption, (picture(media, path),), instruction=told)


def _list(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise TypeError("a list of targets is empty or no list of texts")
    return value


def _words(text: str) -> str | None:
    return text.replace(IMAGE_TOKEN, "").strip() or None
