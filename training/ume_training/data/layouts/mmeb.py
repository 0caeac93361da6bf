"""MMEB-train (TIGER-Lab/MMEB-train): one folder of Parquet files a subset, with images next to them.

Rows hold `qry`, `qry_image_path`, `pos_text`, `pos_image_path` and, in some subsets, `neg_text` and `neg_image_path`;
either of text and image may be empty. Texts carry the placeholder `<|image_1|>`, which is removed:
the Embedder's own chat places the images. Splits `original` and `diverse_instruction` lie side by
side as `original-*.parquet` and `diverse_instruction-*.parquet`; the original one is read.

Taken from: the loader TIGER-AI-Lab/VLM2Vec at 6e1e1d4, src/data/dataset/mmeb_dataset.py and
experiments/public/train/train_image.yaml (fields, splits, images below one folder); its README for the splits. The
names of the Parquet files follow the hub's convention and were not seen; files without a split's name are read too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ume_training.data.layouts.base import Found, Layout, Row, Source, found, item, read_each, text_of, under

PLACEHOLDER = re.compile(r"<\|image_\d+\|>|<image>")
OTHER_SPLIT = "diverse_instruction"


def read(source: Source) -> Iterator[Found]:
    """Read every subset of a folder, or one file."""
    for file in source.files(".parquet", ".jsonl", ".json"):
        if file.name.startswith(OTHER_SPLIT):
            continue
        dataset = source.dataset or (file.parent.name if file.suffix == ".parquet" else file.stem)
        if not source.leaves_out(dataset):
            yield from read_each(file, partial(pair, source=source, dataset=dataset, file=file))


def pair(row: Row, line: int, *, source: Source, dataset: str, file: Path) -> Found:
    """Return a row as a pair; T-CoTs (`query_cot`, `pos_cot`) are taken where there are some."""
    media = source.media or source.root
    negative = _item(row, "neg_text", "neg_image_path", media)
    values: dict[str, Any] = {
        "id": source.row_name(file, line),
        "dataset": dataset,
        "query": _item(row, "qry", "qry_image_path", media),
        "positive": _item(row, "pos_text", "pos_image_path", media),
        "negatives": (negative,) if negative["text"] or negative["images"] else (),
        "target": _words(row, "pos_text") or None,
        "query_tcot": text_of(row, "query_cot").strip() or None,
        "positive_tcot": text_of(row, "pos_cot").strip() or None,
    }
    return found(file, line, values)


def _item(row: Row, text: str, image: str, media: Path) -> dict[str, Any]:
    path = text_of(row, image).strip()
    return item(text=_words(row, text), images=(under(media, path),) if path else ())


def _words(row: Row, key: str) -> str:
    """Return a text without placeholders, its lines and spaces as they were."""
    return PLACEHOLDER.sub("", text_of(row, key)).strip()


LAYOUT = Layout("mmeb-train", "TIGER-Lab/MMEB-train", "image pairs, one folder a subset", read)
