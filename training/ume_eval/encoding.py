"""Embed samples that the store does not have yet, and keep vectors on disk by content.

Runs resume, equal samples are embedded once, and stores of several machines merge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ume_eval.samples import Sample
from ume_retrieval.engines.base import tcot_sampling
from ume_retrieval.errors import Failure, InputError, UmeError
from ume_retrieval.inputs import Item, Modality, Side
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.encode_options import ReasoningMode
from ume_retrieval.results import Trace
from ume_retrieval.util.sqlite import SQLiteStore

Encoding: TypeAlias = Literal["direct", "reasoned"]
"""How a sample is embedded: without or with a T-CoT."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A unit vector, the numbers of tokens that the Reasoner wrote, of evidence and of keywords, and the raw T-CoT.

    The numbers are 0 and the T-CoT is empty for a direct vector.
    """

    vector: npt.NDArray[np.float32]
    tokens: int = 0
    evidence: int = 0
    keywords: int = 0
    trace: str = ""


class VectorStore(SQLiteStore):
    """A SQLite file of vectors, safe under `kill -9` and concurrent processes of one machine.

    Args:
        path: The SQLite file; created, with its folders, if missing.

    Raises:
        CacheError: When the file is damaged, belongs to another program, or cannot be opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = VectorStore(Path(folder) / "vectors.sqlite3")
        ...     new = store.put_many({"key": Stored(np.ones(2, np.float32))})
        ...     store.known(["key", "other"]), store.get_many(["key"])["key"].vector
        ({'key'}, array([1., 1.], dtype=float32))
    """

    what = "the vector store"
    table = "vectors"
    schema = """
    CREATE TABLE IF NOT EXISTS vectors (
        key TEXT PRIMARY KEY,
        vector BLOB NOT NULL,
        tokens INTEGER NOT NULL,
        evidence INTEGER NOT NULL,
        keywords INTEGER NOT NULL,
        trace TEXT NOT NULL
    ) WITHOUT ROWID
    """
    application_id = 0x756D6532  # "ume2"
    when_damaged = "delete the file; its vectors are made again"

    def known(self, keys: Iterable[str]) -> set[str]:
        """Return the keys that have a vector."""
        return {key for [key] in self._select("key", keys)}

    def get_many(self, keys: Iterable[str]) -> dict[str, Stored]:
        """Return the records of the keys; unknown keys are skipped."""
        rows = self._select("key, vector, tokens, evidence, keywords, trace", keys)
        return {key: Stored(np.frombuffer(blob, dtype=np.float32), *rest) for key, blob, *rest in rows}

    def put_many(self, records: Mapping[str, Stored]) -> int:
        """Add vectors in one transaction and return how many were new; a known key keeps its first vector."""
        rows = [
            (key, one.vector.astype(np.float32).tobytes(), one.tokens, one.evidence, one.keywords, one.trace)
            for key, one in records.items()
        ]
        with self._transaction() as database:
            new = database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?, ?, ?, ?)", rows).rowcount
        return max(new, 0)

    def merge(self, other: Path) -> int:
        """Add the vectors of another file, such as another machine's shard, and return how many were new.

        Raises:
            InputError: When the file does not exist.
            CacheError: When it is not a file of vectors.
        """
        if not other.is_file():
            raise InputError(f"{other} does not exist", hint="name the folder of another run with --merge")
        if other.samefile(self.path):
            return 0  # SQLite would wait for itself
        VectorStore(other)
        with self._database() as database:
            database.execute("ATTACH DATABASE ? AS other", (str(other),))
            database.execute("BEGIN IMMEDIATE")
            new = database.execute("INSERT OR IGNORE INTO main.vectors SELECT * FROM other.vectors").rowcount
            database.execute("COMMIT")
        return max(new, 0)


def identity(embedder: ReasoningEmbedder, side: Side, encoding: Encoding, target: Modality | None) -> bytes:
    """Hash everything but the sample that decides its vector: weights, prompts, budgets, decoding, side.

    The engine is left out: the same weights make the same vectors up to rounding.
    """
    parts: dict[str, object] = {
        "embedder": [embedder.embedder.info.name, embedder.embedder.info.revision],
        "spec": embedder.embedder.spec.model_dump(),
        "encoding": encoding,
    }
    if encoding == "reasoned" and embedder.reasoner is not None:
        reasoner = embedder.reasoner
        parts |= {
            "side": side,
            "target": target if side == "query" else None,
            "reasoner": [reasoner.info.name, reasoner.info.revision],
            "reasoner_spec": reasoner.spec.model_dump(),
            "sampling": (embedder.sampling or tcot_sampling(reasoner)).identity(),
        }
    return sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def vector_key(identity: bytes, digest: str) -> str:
    """Return the key of a sample's vector, 64 hex digits."""
    return sha256(identity + bytes.fromhex(digest)).hexdigest()


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of the samples; a sample's content decides its part.

    Attributes:
        number: Number of the part, 1..of.
        of: Number of parts.

    Raises:
        InputError: When the number is out of range.

    Example:
        >>> Shard.parse("2/4")
        Shard(number=2, of=4)
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise InputError(
                f"shard {self.number}/{self.of} does not exist", hint="write --shard 1/4 up to --shard 4/4"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse "i/n".

        Raises:
            InputError: For any other text.
        """
        number, slash, of = text.partition("/")
        if not slash or not number.strip().isdecimal() or not of.strip().isdecimal():
            raise InputError(f"{text!r} is not a shard", hint="write --shard 1/4")
        return cls(int(number), int(of))

    def holds(self, key: str) -> bool:
        """Return whether a vector's key belongs to this part."""
        return int(key[:12], 16) % self.of == self.number - 1


CHUNK: Final = 64
"""Samples that are embedded and stored together; a killed run loses at most these."""

Advance: TypeAlias = Callable[[int], None]
"""Called with the number of further samples that are done."""


@dataclass(frozen=True, slots=True)
class SampleSet:
    """The queries or the candidates of a task, each with its name in reports and its digest; None if unreadable.

    `target` is the modality that queries look for; None for candidates.
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
    """The fields of `Stored` for n samples: `rows` has shape (n, dim), the counts (n,); NaN for a missing vector."""

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
