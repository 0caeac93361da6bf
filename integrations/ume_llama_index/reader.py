"""Read folders of images, videos, PDFs and texts as documents."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.readers.base import BasePydanticReader
from llama_index.core.schema import Document

from ume_llama_index.nodes import UmeDocument, document_of
from ume_qdrant.indexing.plan import roots_of
from ume_qdrant.reports import error_of
from ume_retrieval.errors import Failure, UmeError
from ume_retrieval.media import DEFAULT_LIMITS, OVERLAP_S, SEGMENT_S, FoundFile, Limits, entries, walk

logger = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class Reading:
    """Documents and failures of a reader.

    Attributes:
        documents: One per image, video segment, page or text, in a fixed order.
        failures: Files that cannot be read, by name.
    """

    documents: tuple[UmeDocument, ...]
    failures: tuple[Failure, ...]


class UmeReader(BasePydanticReader):
    """Reads images, segments of videos, pages of PDFs and texts as documents.

    File types are detected by content. Ids follow from source, place and content, as in `ume_qdrant`. Nothing is
    decoded here. Metadata: `source`, `kind`, `start_s`, `end_s` and `page`.

    Attributes:
        segment_s: Length of a video segment in seconds.
        overlap_s: Overlap of neighbouring segments in seconds.
        follow_symlinks: Whether links out of the given folders are followed.
        strict: Raise the first failure; otherwise `load_data` logs a warning per file.
        limits: Limits on the cost of a file.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "note.txt").write_text("the last train home")
        >>> [document] = UmeReader().load_data(folder)
        >>> document.text, document.metadata["kind"]
        ('the last train home', 'text')
    """

    segment_s: float = Field(default=SEGMENT_S, gt=0)
    overlap_s: float = Field(default=OVERLAP_S, ge=0)
    follow_symlinks: bool = False
    strict: bool = False
    limits: Limits = Field(default=DEFAULT_LIMITS, exclude=True)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "UmeReader"

    def read(self, paths: Paths) -> Reading:
        """Read all files under `paths`, and list those that could not be read.

        Raises:
            InputError: If `paths` is empty, or the segment settings are invalid.
            UmeError: If strict, the first failure.
        """
        documents: list[UmeDocument] = []
        failures: list[Failure] = []
        for found in self._found(paths):
            if isinstance(found, Failure):
                failures.append(found)
            else:
                documents.append(found)
        return Reading(tuple(documents), tuple(failures))

    def lazy_load_data(
        self, paths: Paths, *, extra_info: Mapping[str, Any] | None = None, **_: Any
    ) -> Iterator[Document]:
        """Yield documents; files that cannot be read are logged.

        Args:
            paths: Files and folders.
            extra_info: Metadata for every document, as `SimpleDirectoryReader` passes to its `file_extractor`.
        """
        for found in self._found(paths):
            if isinstance(found, Failure):
                logger.warning("%s left out: %s (%s)", found.source, found.message, found.hint)
                continue
            found.metadata = {**(extra_info or {}), **found.metadata}
            found.excluded_embed_metadata_keys += list(extra_info or {})
            yield found

    def _found(self, paths: Paths) -> Iterator[UmeDocument | Failure]:
        for number, found in enumerate(walk(roots_of(paths), limits=self.limits, follow_symlinks=self.follow_symlinks)):
            result = self._parts(found, number) if isinstance(found, FoundFile) else [found]
            for one in result:
                if isinstance(one, Failure) and self.strict:
                    raise error_of(one)
                yield one

    def _parts(self, found: FoundFile, number: int) -> Sequence[UmeDocument | Failure]:
        cut = (self.segment_s, self.overlap_s)
        try:
            parts = entries(found, limits=self.limits, segment_s=self.segment_s, overlap_s=self.overlap_s)
        except UmeError as error:
            return [Failure.of(error, index=number, source=found.source)]
        return [document_of(entry, parts=len(parts), cut=cut) for entry in parts]
