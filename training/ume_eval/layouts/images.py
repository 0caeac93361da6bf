"""MMEB-V2's image tasks: rows with an instruction, a text and a picture, and a list of targets; the first is correct.

Columns as in `ziyjiang/MMEB_Test_Instruct`: `qry_inst`, `qry_text`, `qry_img_path`, `tgt_inst`, `tgt_text`,
`tgt_img_path`; pictures are in `image-tasks/`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ume_eval.layouts.builder import TaskBuilder, picture
from ume_eval.samples import Sample

IMAGE_TOKEN = "<|image_1|>"
"""Marks the place of the picture in the rows' texts; model families insert their own token."""


def image_to_text(builder: TaskBuilder, values: dict[str, Any]) -> None:
    """Read a picture, usually with a question, and texts: classification, question answering, captions."""
    sample = _query(values, builder.media)
    texts = _list(values["tgt_text"])
    builder.texts(texts)
    builder.query(sample, {texts[0]: 1.0}, texts)


def to_images(builder: TaskBuilder, values: dict[str, Any]) -> None:
    """Read a text, a picture or both, and pictures, with captions in some tasks: retrieval, grounding."""
    sample = _query(values, builder.media)
    instruction = _text(values["tgt_inst"])
    pairs = list(zip(_list(values["tgt_img_path"]), _list(values["tgt_text"]), strict=True))
    # One picture may be a target under several captions (EDIS, RefCOCO-Matching): the key has both.
    names = [f"{path}:{caption.strip()}" for path, caption in pairs]
    for name, (path, caption) in zip(names, pairs, strict=True):
        builder.candidate(name, partial(_target, builder.media, path, _text(caption), instruction))
    builder.query(sample, {names[0]: 1.0}, names)


def _query(values: dict[str, Any], media: Path) -> Sample:
    path = values.get("qry_img_path") or ""
    images = (picture(media, str(path)),) if path else ()
    return Sample(_text(values["qry_text"]), images, instruction=_text(values["qry_inst"]))


def _target(media: Path, path: str, caption: str | None, instruction: str | None) -> Sample:
    return Sample(caption, (picture(media, path),), instruction=instruction)


def _list(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise TypeError("the targets are empty or not a list of texts")
    return value


def _text(text: str) -> str | None:
    return text.replace(IMAGE_TOKEN, "").strip() or None
