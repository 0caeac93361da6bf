"""Render a report as one HTML page that needs no network and runs no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import jinja2

from ume_retrieval.inputs import Frames
from ume_retrieval.report.content import Kind, ReportHit, ReportPage, ReportQuery
from ume_retrieval.report.encoding import picture
from ume_retrieval.report.sanitize import (
    MAX_KEYWORDS,
    clock,
    escape_control,
    format_score,
    mark_keywords,
    one_line,
    plural,
)
from ume_retrieval.tcot.trace import TCot
from ume_retrieval.util.files import atomic_write

_PLACES: dict[Kind, tuple[int, int]] = {
    "image": (300, 300),
    "page": (300, 400),
    "video": (300, 225),
    "text": (300, 300),
}
_FRAME_PLACE = (110, 83)


def write_html(page: ReportPage, path: str | Path) -> Path:
    """Write a report as one self-contained HTML file.

    Args:
        page: Content of the report. Texts may come from models and file names: they are shown as text, never as markup.
        path: The file to write, replaced if it exists; missing folders are made.

    Returns:
        The file's path.

    Raises:
        InputError: When the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_html(ReportPage("Holiday photos"), Path(folder) / "report.html").name
        'report.html'
    """
    return atomic_write(path, render_html(page), what="the report")


def render_html(page: ReportPage) -> str:
    """Render a report as HTML text, for an app that serves it itself.

    Example:
        >>> "<script>" in render_html(ReportPage("<script>alert(1)</script>"))
        False
    """
    document = _template().render(
        title=one_line(page.title),
        facts=[(one_line(name), one_line(value)) for name, value in page.facts],
        table=page.table,
        notes=[escape_control(note) for note in page.notes],
        queries=[query_view(number, query) for number, query in enumerate(page.queries, start=1)],
        escape_control=escape_control,
    )
    return document.lstrip()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ume_retrieval.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html.j2")


View: TypeAlias = dict[str, Any]
"""Values for the template, by the names that it reads."""


def query_view(number: int, query: ReportQuery) -> View:
    """Prepare a query and its hits for the template.

    Args:
        number: Number of the query on the page, 1-based.
        query: The query.

    Example:
        >>> hits = (ReportHit("a.jpg", "image", 0.5), ReportHit("b.jpg", "image", 0.25))
        >>> [(hit["rank"], hit["score"], hit["share"]) for hit in query_view(1, ReportQuery("a beach", hits))["hits"]]
        [(1, '0.500', 100.0), (2, '0.250', 50.0)]
    """
    best = max((hit.score for hit in query.hits if math.isfinite(hit.score)), default=0.0)
    return View(
        number=number,
        task=one_line(query.task),
        note=escape_control(query.note),
        media=_media_view(f"query {number}", "image", query),
        trace=_trace_view(query.trace, query.videos),
        found_first=query.found_first,
        hits=tuple(_hit_view(rank, hit, best) for rank, hit in enumerate(query.hits, start=1)),
    )


def _hit_view(rank: int, hit: ReportHit, best: float) -> View:
    is_comparable = math.isfinite(hit.score) and best > 0
    title = one_line(hit.title)
    return View(
        rank=rank,
        title=title,
        kind=hit.kind,
        score=format_score(hit.score),
        share=round(100 * min(1.0, max(0.0, hit.score / best)), 1) if is_comparable else 0.0,
        place=hit.place,
        relevant=hit.relevant,
        media=_media_view(f"hit {rank}, {title}", hit.kind, hit),
        timeline=_timeline_view(hit),
        trace=_trace_view(hit.trace, hit.videos),
    )


def _media_view(name: str, kind: Kind, shown: ReportHit | ReportQuery) -> View:
    trace = shown.trace or TCot()
    pictures = (
        picture(image, _alt(name, image_index, trace), _PLACES[kind], boxes=trace.boxes, image_index=image_index)
        for image_index, image in enumerate(shown.images)
    )
    films = (_film_view(name, video, trace.key_frames if not index else ()) for index, video in enumerate(shown.videos))
    return View(
        pictures=tuple(one for one in pictures if one),
        films=tuple(film for film in films if film),
        words=mark_keywords(escape_control(shown.text or ""), trace.keywords),
    )


def _alt(name: str, image_index: int, trace: TCot) -> str:
    marked = sum(box.image == image_index for box in trace.boxes)
    regions = f", {plural(marked, 'region')} marked" if marked else ""
    return f"image {image_index + 1} of {name}{regions}"


def _film_view(name: str, video: Frames, key_frames: Sequence[int]) -> View | None:
    def frame_view(number: int, place: tuple[int, int]) -> View | None:
        time = clock(video.timestamps[number - 1])
        shown = picture(video.images[number - 1], f"frame {number} of {name} at {time}", place)
        return View(picture=shown, time=time, key=number in key_frames) if shown else None

    numbers = range(1, len(video.images) + 1)
    key = next((number for number in key_frames if number in numbers), (len(numbers) + 1) // 2)
    hero = frame_view(key, _PLACES["video"])
    frames = tuple(frame for number in numbers if (frame := frame_view(number, _FRAME_PLACE)))
    return View(hero=hero, frames=frames) if hero else None


def _timeline_view(hit: ReportHit) -> View | None:
    if hit.start_s is None or hit.end_s is None:
        return None
    total = max(hit.end_s, hit.duration_s or 0.0)
    if not (math.isfinite(total) and 0 <= hit.start_s < hit.end_s):
        return None
    times = hit.videos[0].timestamps if hit.videos else ()
    keys = hit.trace.key_frames if hit.trace else ()
    ticks = tuple(round(100 * times[key - 1] / total, 2) for key in keys if 1 <= key <= len(times))
    return View(
        left=abs(round(100 * hit.start_s / total, 2)),
        width=round(100 * (hit.end_s - hit.start_s) / total, 2),
        ticks=tuple(tick for tick in ticks if 0 <= tick <= 100),
        start=clock(hit.start_s),
        end=clock(hit.end_s),
        total=clock(total),
    )


def _trace_view(trace: TCot | None, videos: Sequence[Frames]) -> View | None:
    if trace is None:
        return None
    times = videos[0].timestamps if videos else ()
    details = View(
        thinking=mark_keywords(escape_control(trace.thinking), trace.keywords),
        rethink=escape_control(trace.rethink),
        keywords=tuple(one_line(keyword, 200) for keyword in trace.keywords[:MAX_KEYWORDS]),
        regions=tuple(f"({box.x1}, {box.y1}) to ({box.x2}, {box.y2})" for box in trace.boxes),
        key_frames=tuple(
            f"{number} at {clock(times[number - 1])}" if 1 <= number <= len(times) else str(number)
            for number in trace.key_frames
        ),
        problems=tuple(one_line(f"{problem.name}: {problem.detail}".removesuffix(": ")) for problem in trace.problems),
        raw=escape_control(trace.raw),
    )
    faults = plural(len(trace.problems), "fault")
    return View(answer=escape_control(trace.answer), folded=any(details.values()), faults=faults, **details)
