"""Embed samples that the store does not have yet, and collect their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from ume_eval.samples import Sample
from ume_eval.store import Encoding, Shard, Stored, VectorStore, identity, vector_key
from ume_retrieval.errors import Failure, UmeError
from ume_retrieval.inputs import Item, Modality, Side
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.encode_options import ReasoningMode
from ume_retrieval.results import Trace

CHUNK: Final = 64
"""Samples that are embedded and stored together; a killed run loses at most these."""

Advance: TypeAlias = Callable[[int], None]
"""Called with the number of further samples that are done."""


@dataclass(frozen=True, slots=True)
class SampleSet:
    """The queries or the candidates of a task.

    Attributes:
        side: Query or corpus.
        target: Modality that queries look for; None for candidates.
        names: Name of each sample in reports.
        samples: The samples.
        digests: Content digest of each; None for an unreadable sample.
        failures: Unreadable samples.
    """

    side: Side
    target: Modality | None
    names: tuple[str, ...]
    samples: tuple[Sample, ...]
    digests: tuple[str | None, ...]
    failures: tuple[Failure, ...]

    @classmethod
    def of(cls, side: Side, target: Modality | None, named: Sequence[tuple[str, Sample]]) -> SampleSet:
        """Hash every sample; an unreadable sample becomes a failure."""
        digests: list[str | None] = []
        failures: list[Failure] = []
        for index, (name, sample) in enumerate(named):
            try:
                digests.append(sample.digest())
            except UmeError as error:
                digests.append(None)
                failures.append(Failure.of(error, index=index, source=name))
        names, samples = tuple(name for name, _ in named), tuple(sample for _, sample in named)
        return cls(side, target, names, samples, tuple(digests), tuple(failures))

    def keys(self, embedder: ReasoningEmbedder, encoding: Encoding) -> list[str | None]:
        """Return the key of each sample's vector; None for an unreadable sample."""
        base = identity(embedder, self.side, encoding, self.target)
        return [None if digest is None else vector_key(base, digest) for digest in self.digests]


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Vectors of samples and their costs.

    Attributes:
        rows: float32, shape (n, dim); NaN for a missing vector.
        tokens: Tokens that the Reasoner wrote for each, shape (n,).
        evidence: Crops and key frames of each, shape (n,).
        keywords: Keywords of each, shape (n,).
        traces: Raw T-CoT of each; empty for none.
    """

    rows: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.int64]
    evidence: npt.NDArray[np.int64]
    keywords: npt.NDArray[np.int64]
    traces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredEncoder:
    """Embeds through a store: a stored vector is never computed again, whichever run or task it came from."""

    embedder: ReasoningEmbedder
    store: VectorStore

    def missing(self, samples: SampleSet, encoding: Encoding, shard: Shard | None = None) -> dict[str, int]:
        """Return keys without a vector, each with the position of its first sample."""
        first: dict[str, int] = {}
        for index, key in enumerate(samples.keys(self.embedder, encoding)):
            if key is not None and (shard is None or shard.holds(key)):
                first.setdefault(key, index)
        known = self.store.known(first)
        return {key: index for key, index in first.items() if key not in known}

    def embed(self, samples: SampleSet, encoding: Encoding, wanted: dict[str, int], advance: Advance) -> list[Failure]:
        """Embed the `wanted` keys, chunk by chunk, and store each chunk before the next begins.

        Returns:
            Samples that could not be embedded; the next run tries them again.
        """
        failures: list[Failure] = []
        order = list(wanted.items())
        for start in range(0, len(order), CHUNK):
            some = dict(order[start : start + CHUNK])
            items: dict[str, Item] = {}
            for key, index in some.items():
                try:
                    items[key] = samples.samples[index].item()
                except UmeError as error:
                    failures.append(Failure.of(error, index=index, source=samples.names[index]))
            for failure in self._encode(samples, encoding, items):
                index = some[list(items)[failure.index]]
                failures.append(replace(failure, index=index, source=samples.names[index]))
            advance(len(some))
        return failures

    def gather(self, samples: SampleSet, encoding: Encoding) -> Vectors:
        """Return the stored vectors of all samples; equal samples share one."""
        keys = samples.keys(self.embedder, encoding)
        found = self.store.get_many(key for key in keys if key is not None)
        absent = Stored(np.full(self.embedder.dimension, np.nan, dtype=np.float32))
        records = [found.get(key or "", absent) for key in keys]
        rows = np.array([one.vector for one in records], dtype=np.float32).reshape(-1, self.embedder.dimension)
        tokens, evidence, keywords = (
            np.array([getattr(one, name) for one in records], dtype=np.int64)
            for name in ("tokens", "evidence", "keywords")
        )
        return Vectors(rows, tokens, evidence, keywords, tuple(one.trace for one in records))

    def _encode(self, samples: SampleSet, encoding: Encoding, items: dict[str, Item]) -> tuple[Failure, ...]:
        if not items:
            return ()
        mode: ReasoningMode = "always" if encoding == "reasoned" else "never"
        given, encoder = list(items.values()), self.embedder
        if samples.side == "query":
            result = encoder.encode_query(
                given, reasoning=mode, target=samples.target, return_traces=True, strict=False
            )
        else:
            result = encoder.encode_corpus(given, reasoning=mode, return_traces=True, strict=False)
        lost = {failure.index for failure in result.failures}
        self.store.put_many(
            {
                key: _stored(np.asarray(result.vectors[place], dtype=np.float32), result.traces[place])
                for place, key in enumerate(items)
                if place not in lost
            }
        )
        return result.failures


def _stored(vector: npt.NDArray[np.float32], trace: Trace | None) -> Stored:
    if trace is None:
        return Stored(vector)
    return Stored(vector, trace.completion_tokens, len(trace.evidence), len(trace.tcot.keywords), trace.tcot.raw)
