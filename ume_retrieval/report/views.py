"""What the template reads: the report's values as legible words, encoded pictures and per cent of widths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import PIL.Image

from ume_retrieval.inputs import Frames
from ume_retrieval.report.content import Kind, ReportHit, ReportQuery
from ume_retrieval.report.encoding import Picture, picture
from ume_retrieval.report.wording import (
    MAX_KEYWORDS,
    Run,
    clock,
    legible,
    mark_keywords,
    one_line,
    plural,
    score_in_words,
)
from ume_retrieval.tcot.trace import TCot

_PLACES: dict[Kind, tuple[int, int]] = {
    "image": (300, 300),
    "page": (300, 400),
    "video": (300, 225),
    "text": (300, 300),
}
_FRAME_PLACE = (110, 83)


@dataclass(frozen=True, slots=True)
class TraceView:
    """A trace as the template reads it."""

    answer: str
    thinking: tuple[Run, ...]
    rethink: str
    keywords: tuple[str, ...]
    regions: tuple[str, ...]
    key_frames: tuple[str, ...]
    problems: tuple[str, ...]
    raw: str

    @property
    def folded(self) -> bool:
        """Whether there is more to read than the answer."""
        return any((self.thinking, self.rethink, self.keywords, self.regions, self.key_frames, self.problems, self.raw))

    @property
    def faults(self) -> str:
        """How many things are wrong with the model's text."""
        return plural(len(self.problems), "fault")


@dataclass(frozen=True, slots=True)
class FrameView:
    """One frame of a film strip."""

    picture: Picture
    time: str
    key: bool


@dataclass(frozen=True, slots=True)
class FilmView:
    """A video: one frame to look at, all frames under it."""

    hero: FrameView
    frames: tuple[FrameView, ...]


@dataclass(frozen=True, slots=True)
class TimelineView:
    """Where a stretch lies in its video, in per cent of the whole."""

    left: float
    width: float
    ticks: tuple[float, ...]
    start: str
    end: str
    total: str


@dataclass(frozen=True, slots=True)
class MediaView:
    """What an item shows: pictures, films and words."""

    pictures: tuple[Picture, ...]
    films: tuple[FilmView, ...]
    words: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class HitView:
    """One card."""

    rank: int
    title: str
    kind: Kind
    score: str
    share: float
    place: str
    relevant: bool | None
    media: MediaView
    timeline: TimelineView | None
    trace: TraceView | None


@dataclass(frozen=True, slots=True)
class QueryView:
    """One query with its cards."""

    number: int
    task: str
    note: str
    media: MediaView
    trace: TraceView | None
    found_first: bool | None
    hits: tuple[HitView, ...]


def query_view(number: int, query: ReportQuery) -> QueryView:
    """Prepare a query and its hits for the template.

    Args:
        number: Number of the query on the page, 1-based.
        query: The query.

    Example:
        >>> hits = (ReportHit("a.jpg", "image", 0.5), ReportHit("b.jpg", "image", 0.25))
        >>> [(hit.rank, hit.score, hit.share) for hit in query_view(1, ReportQuery("a beach", hits)).hits]
        [(1, '0.500', 100.0), (2, '0.250', 50.0)]
    """
    best = max((hit.score for hit in query.hits if math.isfinite(hit.score)), default=0.0)
    return QueryView(
        number=number,
        task=one_line(query.task),
        note=legible(query.note),
        media=_media_view(
            f"query {number}", "image", text=query.text, images=query.images, videos=query.videos, trace=query.trace
        ),
        trace=_trace_view(query.trace, query.videos),
        found_first=query.found_first,
        hits=tuple(_hit_view(rank, hit, best) for rank, hit in enumerate(query.hits, start=1)),
    )


def _hit_view(rank: int, hit: ReportHit, best: float) -> HitView:
    finite = math.isfinite(hit.score)
    return HitView(
        rank=rank,
        title=one_line(hit.title),
        kind=hit.kind,
        score=score_in_words(hit.score),
        share=round(100 * min(1.0, max(0.0, hit.score / best)), 1) if finite and best > 0 else 0.0,
        place=hit.place,
        relevant=hit.relevant,
        media=_media_view(
            f"hit {rank}, {one_line(hit.title)}",
            hit.kind,
            text=hit.text,
            images=hit.images,
            videos=hit.videos,
            trace=hit.trace,
        ),
        timeline=_timeline_view(hit),
        trace=_trace_view(hit.trace, hit.videos),
    )


def _media_view(
    name: str,
    kind: Kind,
    *,
    text: str | None,
    images: Sequence[PIL.Image.Image],
    videos: Sequence[Frames],
    trace: TCot | None,
) -> MediaView:
    trace = trace or TCot()
    pictures = (
        picture(image, _alt(name, image_index, trace), _PLACES[kind], boxes=trace.boxes, image_index=image_index)
        for image_index, image in enumerate(images)
    )
    films = (_film_view(name, video, trace.key_frames if not index else ()) for index, video in enumerate(videos))
    return MediaView(
        pictures=tuple(shown for shown in pictures if shown),
        films=tuple(film for film in films if film),
        words=mark_keywords(legible(text or ""), trace.keywords),
    )


def _alt(name: str, image_index: int, trace: TCot) -> str:
    marked = sum(box.image == image_index for box in trace.boxes)
    regions = f", {plural(marked, 'region')} marked" if marked else ""
    return f"image {image_index + 1} of {name}{regions}"


def _film_view(name: str, video: Frames, key_frames: Sequence[int]) -> FilmView | None:
    def frame_view(number: int, place: tuple[int, int]) -> FrameView | None:
        time = clock(video.timestamps[number - 1])
        shown = picture(video.images[number - 1], f"frame {number} of {name} at {time}", place)
        return FrameView(shown, time, number in key_frames) if shown else None

    numbers = range(1, len(video.images) + 1)
    key = next((number for number in key_frames if number in numbers), (len(numbers) + 1) // 2)
    hero = frame_view(key, _PLACES["video"])
    frames = tuple(frame for number in numbers if (frame := frame_view(number, _FRAME_PLACE)))
    return FilmView(hero, frames) if hero else None


def _timeline_view(hit: ReportHit) -> TimelineView | None:
    if hit.start_s is None or hit.end_s is None:
        return None
    total = max(hit.end_s, hit.duration_s or 0.0)
    if not (math.isfinite(total) and 0 <= hit.start_s < hit.end_s):
        return None
    times = hit.videos[0].timestamps if hit.videos else ()
    keys = hit.trace.key_frames if hit.trace else ()
    ticks = tuple(round(100 * times[key - 1] / total, 2) for key in keys if 1 <= key <= len(times))
    return TimelineView(
        left=abs(round(100 * hit.start_s / total, 2)),
        width=round(100 * (hit.end_s - hit.start_s) / total, 2),
        ticks=tuple(tick for tick in ticks if 0 <= tick <= 100),
        start=clock(hit.start_s),
        end=clock(hit.end_s),
        total=clock(total),
    )


def _trace_view(trace: TCot | None, videos: Sequence[Frames]) -> TraceView | None:
    if trace is None:
        return None
    times = videos[0].timestamps if videos else ()
    return TraceView(
        answer=legible(trace.answer),
        thinking=mark_keywords(legible(trace.thinking), trace.keywords),
        rethink=legible(trace.rethink),
        keywords=tuple(one_line(keyword, 200) for keyword in trace.keywords[:MAX_KEYWORDS]),
        regions=tuple(f"({box.x1}, {box.y1}) to ({box.x2}, {box.y2})" for box in trace.boxes),
        key_frames=tuple(
            f"{number} at {clock(times[number - 1])}" if 1 <= number <= len(times) else str(number)
            for number in trace.key_frames
        ),
        problems=tuple(one_line(f"{problem.name}: {problem.detail}".removesuffix(": ")) for problem in trace.problems),
        raw=legible(trace.raw),
    )
