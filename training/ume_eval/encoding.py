"""Samples to vectors, each once: what the store knows is not embedded again, whatever run or task it came from."""

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
"""Samples that are embedded and stored together; a killed run loses no more than these."""

Advance: TypeAlias = Callable[[int], None]
"""Called with how many samples are done."""


@dataclass(frozen=True, slots=True)
class Sided:
    """Samples of one side of a task, each with its digest.

    Attributes:
        side: Query or corpus.
        target: What queries look for; None on the corpus side.
        names: What a report calls each.
        samples: One a name.
        digests: Hex digests; None where a file could not be read.
        failures: Those that could not be read.
    """

    side: Side
    target: Modality | None
    names: tuple[str, ...]
    samples: tuple[Sample, ...]
    digests: tuple[str | None, ...]
    failures: tuple[Failure, ...]

    @classmethod
    def of(cls, side: Side, target: Modality | None, named: Sequence[tuple[str, Sample]]) -> Sided:
        """Hash every sample; one that cannot be read becomes a failure."""
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
        """Key of each sample's vector; None where it could not be read."""
        base = identity(embedder, self.side, encoding, self.target)
        return [None if digest is None else vector_key(base, digest) for digest in self.digests]


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Vectors of samples, with what they took.

    Attributes:
        rows: float32, shape (n, dim); NaN where there is none.
        tokens: Tokens that the Reasoner wrote for each, shape (n,).
        evidence: Crops and key frames of each, shape (n,).
        keywords: Keywords of each, shape (n,).
        traces: T-CoT of each as it was written; empty where there is none.
    """

    rows: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.int64]
    evidence: npt.NDArray[np.int64]
    keywords: npt.NDArray[np.int64]
    traces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bench:
    """Models and the store that they fill.

    Attributes:
        embedder: Makes the vectors.
        store: Keeps them.
    """

    embedder: ReasoningEmbedder
    store: VectorStore

    def missing(self, sided: Sided, encoding: Encoding, shard: Shard | None = None) -> dict[str, int]:
        """Keys that have no vector yet, each with the position of the first sample that it stands for."""
        first: dict[str, int] = {}
        for index, key in enumerate(sided.keys(self.embedder, encoding)):
            if key is not None and (shard is None or shard.holds(key)):
                first.setdefault(key, index)
        known = self.store.known(first)
        return {key: index for key, index in first.items() if key not in known}

    def embed(self, sided: Sided, encoding: Encoding, wanted: dict[str, int], advance: Advance) -> list[Failure]:
        """Embed what is wanted, chunk by chunk, and keep each chunk before the next begins.

        Args:
            sided: Where the samples are.
            encoding: Direct or reasoned.
            wanted: From `missing`.
            advance: Told of each chunk.

        Returns:
            Samples that could not be embedded. They are tried again by the next run.
        """
        failures: list[Failure] = []
        order = list(wanted.items())
        for start in range(0, len(order), CHUNK):
            some = dict(order[start : start + CHUNK])
            items: dict[str, Item] = {}
            for key, index in some.items():
                try:
                    items[key] = sided.samples[index].item()
                except UmeError as error:
                    failures.append(Failure.of(error, index=index, source=sided.names[index]))
            for failure in self._encode(sided, encoding, items):
                index = some[list(items)[failure.index]]
                failures.append(replace(failure, index=index, source=sided.names[index]))
            advance(len(some))
        return failures

    def gather(self, sided: Sided, encoding: Encoding) -> Vectors:
        """Vectors of all samples from the store, equal samples sharing one."""
        keys = sided.keys(self.embedder, encoding)
        found = self.store.get_many(key for key in keys if key is not None)
        rows = np.full((len(keys), self.embedder.dimension), np.nan, dtype=np.float32)
        records: list[Stored | None] = [None if key is None else found.get(key) for key in keys]
        for place, record in enumerate(records):
            if record is not None:
                rows[place] = record.vector
        return Vectors(
            rows,
            np.array([one.tokens if one else 0 for one in records], dtype=np.int64),
            np.array([one.evidence if one else 0 for one in records], dtype=np.int64),
            np.array([one.keywords if one else 0 for one in records], dtype=np.int64),
            tuple(one.trace if one else "" for one in records),
        )

    def _encode(self, sided: Sided, encoding: Encoding, items: dict[str, Item]) -> tuple[Failure, ...]:
        if not items:
            return ()
        mode: ReasoningMode = "always" if encoding == "reasoned" else "never"
        given, encoder = list(items.values()), self.embedder
        if sided.side == "query":
            result = encoder.encode_query(given, reasoning=mode, target=sided.target, return_traces=True, strict=False)
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
