"""Training sets of document pages as Parquet files with the pictures inside: ViDoRe's and VisRAG's.

- ViDoRe (vidore/colpali_train_set): `query`, `image` (`{"bytes", "path"}`), `image_filename`, `source`, `answer` and
  fields about their making. The page answers the query; `answer` is kept as the label.
- VisRAG (openbmb/VisRAG-Ret-Train-In-domain-data and -Synthetic-data): `query`, `image` and `source`.

Rows of one source that have the same page are not look-alikes but each other's positives; training finds that out by
content. Queries that are null or empty (pages that nobody asked about) are named and left out.

Taken from: TIGER-AI-Lab/VLM2Vec at 6e1e1d4, src/data/dataset/vidore_dataset.py and visrag_dataset.py (columns,
sources); OpenBMB/VisRAG at f35d232, src/openmatch/dataset/train_dataset.py (`query` and `image` with `bytes`). Prompts
that those loaders add are wording and were not taken over. VLM2Vec reads ViDoRe as page and question to answer; here,
as in retrieval, the question looks for the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ume_training.data.layouts.base import Found, Layout, Row, Source, found, item, read_each, text_of


def read(source: Source, family: str) -> Iterator[Found]:
    """Read Parquet files; a data set a `source` of the rows, such as "visrag/ChartQA"."""
    for file in source.files(".parquet"):
        yield from read_each(file, partial(_convert, source=source, family=family, file=file))


def _convert(row: Row, line: int, *, source: Source, family: str, file: Path) -> Found:
    origin = text_of(row, "source").strip()
    return found(
        file,
        line,
        {
            "id": source.row_name(file, line),
            "dataset": source.dataset or (f"{family}/{origin}" if origin else family),
            "query": item(text=text_of(row, "query")),
            "positive": item(images=(source.picture(row.get("image")),)),
            "target": text_of(row, "answer").strip() or None,
        },
    )


LAYOUTS = (
    Layout("vidore", "vidore/colpali_train_set", "question to document page", partial(read, family="vidore")),
    Layout("visrag", "openbmb/VisRAG-Ret-Train-*", "question to document page", partial(read, family="visrag")),
)
