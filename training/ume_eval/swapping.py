"""Does a T-CoT count? Queries are embedded with the T-CoT of another query; if that costs nothing, it is not used."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ume_eval.encoding import CHUNK, Bench, Sided, Vectors
from ume_eval.metrics import Floats, judge, measure
from ume_eval.samples import EvalTask, Sample
from ume_eval.scoring import gains, paired, similarities
from ume_eval.store import Stored, vector_key
from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import embed_each
from ume_retrieval.engines.families import reasoned_chat
from ume_retrieval.errors import UmeError
from ume_retrieval.media import load
from ume_retrieval.pipeline.embedder import ReasoningEmbedder

MOST: Final = 200
"""Queries of a task that are swapped; each costs one pass of the Embedder and none of the Reasoner."""

LEAST: Final = 20
"""With fewer swapped queries nothing is said."""

Row: TypeAlias = npt.NDArray[np.float32]

Verdict: TypeAlias = Literal["used", "not shown to be used", "too few queries"]


@dataclass(frozen=True, slots=True)
class Swap:
    """Reasoned retrieval with queries' own T-CoTs against others' T-CoTs, the corpus unchanged.

    Attributes:
        queries: How many were compared.
        own: Main metric with their own T-CoTs, in percent.
        swapped: Main metric with others' T-CoTs.
        drop: Mean of own - swapped, in percent.
        error: Standard error of the drop.
        cosine: Mean cosine of a query's two vectors; 1.0 means that the T-CoT moves nothing.
    """

    queries: int
    own: float
    swapped: float
    drop: float
    error: float
    cosine: float

    @property
    def verdict(self) -> Verdict:
        """Whether T-CoTs count: "used" when swapping costs more than two standard errors.

        Example:
            >>> Swap(100, 80.0, 40.0, 40.0, 5.0, 0.7).verdict, Swap(100, 80.0, 79.0, 1.0, 2.0, 0.99).verdict
            ('used', 'not shown to be used')
        """
        if self.queries < LEAST:
            return "too few queries"
        return "used" if self.drop > 2 * self.error and self.drop > 0 else "not shown to be used"


def swap_traces(bench: Bench, task: EvalTask, sided: Sided, queries: Vectors, candidates: Vectors) -> Swap:
    """Embed queries anew with the T-CoT of a query that other candidates answer, and judge both ways.

    Args:
        bench: Embeds; what it has stored is not embedded again.
        task: The task.
        sided: Its queries.
        queries: Their reasoned vectors and T-CoTs.
        candidates: The reasoned vectors of its candidates.
    """
    donors = donors_of(task, queries.traces)
    chosen = [place for place, donor in enumerate(donors) if donor is not None][:MOST]
    rows = np.full_like(queries.rows, np.nan)
    swapped = _vectors(bench, sided, [(place, queries.traces[donors[place] or 0]) for place in chosen])
    for place, vector in swapped.items():
        rows[place] = vector
    compared = sorted(swapped)
    own, other = (_judge(task, some, candidates.rows, compared) for some in (queries.rows, rows))
    drop, error = paired(own, other)
    cosines = [float(queries.rows[place] @ rows[place]) for place in compared]
    return Swap(
        queries=len(compared),
        own=100 * float(own.mean()) if compared else 0.0,
        swapped=100 * float(other.mean()) if compared else 0.0,
        drop=drop,
        error=error,
        cosine=float(np.mean(cosines)) if compared else 1.0,
    )


def donors_of(task: EvalTask, traces: Sequence[str]) -> list[int | None]:
    """For each query another with a T-CoT and answers of its own, or None.

    The next such query in the list is taken, so that the choice is the same in every run.
    """
    donors: list[int | None] = []
    count = len(task.queries)
    for place, query in enumerate(task.queries):
        others = ((place + step) % count for step in range(1, count))
        fitting = (
            other
            for other in others
            if traces[other]
            and traces[other] != traces[place]
            and not task.queries[other].answers.keys() & query.answers.keys()
        )
        donors.append(next(fitting, None) if traces[place] else None)
    return donors


def _vectors(bench: Bench, sided: Sided, swaps: Sequence[tuple[int, str]]) -> dict[int, Row]:
    """Vector of each query with a T-CoT that is not its own; those that cannot be embedded are left out."""
    own = sided.keys(bench.embedder, "reasoned")
    keys = {
        place: vector_key(sha256(b"swapped" + trace.encode("utf-8", "surrogatepass")).digest(), key)
        for place, trace in swaps
        if (key := own[place]) is not None
    }
    known = bench.store.known(keys.values())
    todo = [(place, trace) for place, trace in swaps if place in keys and keys[place] not in known]
    for start in range(0, len(todo), CHUNK):
        some = todo[start : start + CHUNK]
        vectors = embed_with(bench.embedder, [(sided.samples[place], trace) for place, trace in some])
        bench.store.put_many(
            {
                keys[place]: Stored(vector, trace=trace)
                for (place, trace), vector in zip(some, vectors, strict=True)
                if vector is not None
            }
        )
    found = bench.store.get_many(keys.values())
    return {place: found[key].vector for place, key in keys.items() if key in found}


def embed_with(embedder: ReasoningEmbedder, pairs: Sequence[tuple[Sample, str]]) -> list[Row | None]:
    """Embed queries with given T-CoTs; boxes and key frames are taken from the samples' own pictures.

    Returns:
        One vector a pair; None where the sample cannot be read or embedded.
    """
    chats: dict[int, Chat] = {}
    for place, (sample, trace) in enumerate(pairs):
        with suppress(UmeError):
            chats[place] = _chat(embedder, sample, trace)
    made = dict(zip(chats, embed_each(embedder.embedder, [*chats.values()]), strict=True))
    found = (made.get(place) for place in range(len(pairs)))
    return [None if one is None or isinstance(one, UmeError) else np.asarray(one, dtype=np.float32) for one in found]


def _chat(embedder: ReasoningEmbedder, sample: Sample, trace: str) -> Chat:
    spec, item = embedder.embedder.spec, sample.item()
    seen_by = embedder.reasoner.spec.budget if embedder.reasoner else spec.budget
    seen, shown = (load(item, budget, embedder.limits) for budget in (seen_by, spec.budget))
    return reasoned_chat(spec, shown, trace, "query", seen=seen).chat


def _judge(task: EvalTask, queries: Row, candidates: Row, places: Sequence[int]) -> Floats:
    rows, gain = similarities(task, queries, candidates), gains(task)
    return np.array(
        [measure(task.task.metric, judge(rows[n], gain[n][0], missing=gain[n][1])) for n in places], dtype=np.float64
    )
