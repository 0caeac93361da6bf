"""Store vectors on disk by content, so that runs resume, equal samples are embedded once, and shards merge."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ume_retrieval.engines.base import tcot_sampling
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Modality, Side
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.util.sqlite import SQLiteStore

Encoding: TypeAlias = Literal["direct", "reasoned"]
"""How a sample is embedded: without or with a T-CoT."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """One sample's vector and its cost.

    Attributes:
        vector: float32, length 1.
        tokens: Tokens that the Reasoner wrote; 0 for a direct vector.
        evidence: Crops and key frames that the Embedder saw.
        keywords: Keywords of the T-CoT.
        trace: The raw T-CoT; empty for a direct vector.
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
