"""Decode media in this process, or in isolated worker processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import PIL.Image

from ume_retrieval.inputs import Clip, Frames, ImageInput, Page, VideoInput, VideoReader
from ume_retrieval.media.files import local_path
from ume_retrieval.media.film import VideoInfo
from ume_retrieval.media.images import check_bytes, check_image, open_image
from ume_retrieval.media.isolation.pool import ReadAnswer, WorkerPool, pool_of
from ume_retrieval.media.isolation.protocol import PipeReader, receive_bytes
from ume_retrieval.media.limits import Limits
from ume_retrieval.media.pages import count_pages
from ume_retrieval.media.video import probe_video, sample_video
from ume_retrieval.util.files import display_name

T = TypeVar("T")


class LocalDecoder:
    """Decodes in this process."""

    open_image = staticmethod(open_image)
    sample_video = staticmethod(sample_video)
    check_image = staticmethod(check_image)
    probe_video = staticmethod(probe_video)
    count_pages = staticmethod(count_pages)


LOCAL: Final = LocalDecoder()


@dataclass(frozen=True, slots=True)
class IsolatedDecoder:
    """Decodes in the workers of a pool, with the methods of `LocalDecoder`; checks decoded media in this process."""

    pool: WorkerPool

    def open_image(self, source: ImageInput, limits: Limits, *, page_pixels: int) -> PIL.Image.Image:
        """Decode an image."""
        body, path, page = b"", None, None
        match source:
            case bytes():
                body = check_bytes(source, limits)
            case Page():
                path, page = source.path, source.page
            case str() | Path():
                path = local_path(source)
            case _:
                return open_image(source, limits, page_pixels=page_pixels)
        request = {"do": "image", "page": page, "page_pixels": page_pixels}

        def read(header: Mapping[str, Any], pipe: PipeReader) -> PIL.Image.Image:
            [picture] = _pictures(header, pipe, limits, 1)
            return picture

        return self._ask(path, request, limits, read, body)

    def sample_video(
        self, source: VideoInput, fps: float, max_frames: int, limits: Limits, *, min_frames: int | None
    ) -> Frames:
        """Sample frames of a video."""
        if isinstance(source, (Frames, VideoReader)):
            return sample_video(source, fps, max_frames, limits, min_frames=min_frames)
        clip = source if isinstance(source, Clip) else Clip(local_path(source))
        sampling = {"fps": fps, "max_frames": max_frames, "min_frames": min_frames}
        request = {"do": "video", "span": [clip.start_s, clip.end_s], **sampling}

        def read(header: Mapping[str, Any], pipe: PipeReader) -> Frames:
            pictures = _pictures(header, pipe, limits, max_frames)
            times = tuple(map(float, header["times"]))
            warnings = tuple(map(str, header["warnings"]))
            return Frames(pictures, times, float(header["duration_s"]), from_file=True, warnings=warnings)

        return self._ask(clip.path, request, limits, read)

    def check_image(self, path: Path, limits: Limits) -> tuple[int, int]:
        """Read the size of an image."""
        return self._ask(path, {"do": "size"}, limits, lambda header, _: _size(header["size"]))

    def probe_video(self, path: Path, limits: Limits) -> VideoInfo:
        """Read the properties of a video."""
        return self._ask(path, {"do": "probe"}, limits, lambda header, _: _info(header["info"]))

    def count_pages(self, path: Path, limits: Limits) -> int:
        """Count the pages of a PDF."""
        return self._ask(path, {"do": "pages"}, limits, lambda header, _: int(header["pages"]))

    def _ask(
        self, path: Path | None, request: Mapping[str, Any], limits: Limits, read: ReadAnswer[T], body: bytes = b""
    ) -> T:
        # Absolute, since the worker keeps the working folder of its start.
        where = None if path is None else str(path.absolute())
        kept = {name: value for name, value in asdict(limits).items() if name != "isolation"}
        name = "the image" if path is None else display_name(path)
        return self.pool.ask(name, {**request, "path": where, "limits": kept}, body, read)


def decoder(limits: Limits) -> LocalDecoder | IsolatedDecoder:
    """Return the decoder for the limits."""
    return LOCAL if limits.isolation is None else IsolatedDecoder(pool_of(limits.isolation))


def _pictures(header: Mapping[str, Any], pipe: PipeReader, limits: Limits, at_most: int) -> tuple[PIL.Image.Image, ...]:
    """Read pixels from a worker, never more than requested."""
    sizes, order = [_size(size) for size in header["sizes"]], header["order"]
    if not len(sizes) <= len(order) <= at_most or any(width * height > limits.max_pixels for width, height in sizes):
        raise ValueError("more pixels than requested")
    distinct = [PIL.Image.frombytes("RGB", size, receive_bytes(pipe, 3 * size[0] * size[1])) for size in sizes]
    return tuple(distinct[place] for place in order)


def _info(facts: Mapping[str, Any]) -> VideoInfo:
    return VideoInfo(**{**facts, "warnings": tuple(map(str, facts["warnings"]))})


def _size(size: Any) -> tuple[int, int]:
    width, height = (int(side) for side in size)
    if width < 1 or height < 1:
        raise ValueError("a picture without pixels")
    return width, height
