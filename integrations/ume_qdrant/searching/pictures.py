"""Convert queries and hits to values that reports draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.errors import MediaError
from ume_retrieval.inputs import Item, LoadedItem
from ume_retrieval.media import load
from ume_retrieval.report import ReportHit, ReportQuery

if TYPE_CHECKING:
    from ume_qdrant.searching.hits import Hit
    from ume_retrieval.results import Trace
    from ume_retrieval.tcot.trace import TCot


def report_query(
    item: Item,
    hits: Sequence[Hit],
    trace: Trace | None,
    *,
    budget: VisualBudget | None = None,
    relevant: Sequence[bool | None] = (),
    task: str = "",
    note: str = "",
) -> ReportQuery:
    """Load the pictures of a query and its hits; media that no longer exist are left out of their cards.

    Args:
        item: The query.
        hits: Best first.
        trace: The Reasoner's trace of the query.
        budget: How videos are sampled, so that the query's key frames have the Reasoner's numbers; None is the default
            budget. Key frames of hits are found by their times.
        relevant: Whether each hit is correct, if known.
        task: Name of the task.
        note: One line under the query.
    """
    sampling = budget or VisualBudget()
    query = _load(lambda: item, sampling)
    known = [*relevant, *[None] * (len(hits) - len(relevant))]
    return ReportQuery(
        text=item.text,
        images=query.images if query else (),
        videos=query.videos if query else (),
        trace=trace.tcot if trace else None,
        hits=tuple(_report_hit(hit, sampling, right) for hit, right in zip(hits, known, strict=True)),
        task=task,
        note=note,
    )


def _report_hit(hit: Hit, budget: VisualBudget, relevant: bool | None) -> ReportHit:  # noqa: FBT001 a fact, not a mode
    loaded = _load(lambda: hit.item, budget)
    return ReportHit(
        title="/".join(Path(hit.source).parts[-3:]),
        kind=hit.kind,
        score=hit.score,
        text=hit.text,
        images=loaded.images if loaded else (),
        videos=loaded.videos if loaded else (),
        trace=_numbered_as_shown(hit, loaded),
        start_s=hit.start_s,
        end_s=hit.end_s,
        page=hit.page,
        relevant=relevant,
    )


def _numbered_as_shown(hit: Hit, loaded: LoadedItem | None) -> TCot | None:
    """Return the hit's trace with key frames numbered by the frames shown, not those the Reasoner saw."""
    if hit.trace is None or loaded is None or not loaded.videos:
        return hit.trace
    times = loaded.videos[0].timestamps
    meant = [frame.time_s for frame in hit.evidence.key_frames if frame.time_s is not None]
    nearest = (min(range(len(times)), key=lambda shown: abs(times[shown] - second)) for second in meant)
    return replace(hit.trace, key_frames=tuple(dict.fromkeys(number + 1 for number in nearest)))


def _load(item: Callable[[], Item], budget: VisualBudget) -> LoadedItem | None:
    try:
        return load(item(), budget)
    except MediaError:
        return None
