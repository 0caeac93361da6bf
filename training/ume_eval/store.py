"""Vectors on disk by content: a killed run goes on, equal samples are embedded once, shards are put together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ume_retrieval.engines.base import tcot_sampling
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Modality, Side
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.util.sqlite import SQLiteStore

Encoding: TypeAlias = Literal["direct", "reasoned"]
"""How a sample is embedded: as it is, or with a T-CoT."""

APPLICATION_ID: Final = 0x756D6532
"""Marks the file as ours ("ume2")."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS vectors (
    key TEXT PRIMARY KEY,
    vector BLOB NOT NULL,
    tokens INTEGER NOT NULL,
    evidence INTEGER NOT NULL,
    keywords INTEGER NOT NULL,
    trace TEXT NOT NULL
) WITHOUT ROWID
"""

KEYS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """One sample's vector, and what it took.

    Attributes:
        vector: float32, length 1.
        tokens: Tokens that the Reasoner wrote for it; 0 for a direct vector.
        evidence: Crops and key frames that the Embedder saw.
        keywords: Keywords that the T-CoT named.
        trace: The T-CoT as it was written; empty for a direct vector.
    """

    vector: npt.NDArray[np.float32]
    tokens: int = 0
    evidence: int = 0
    keywords: int = 0
    trace: str = ""


class VectorStore(SQLiteStore):
    """A file of vectors, safe under `kill -9` and under several processes of one machine.

    Args:
        path: The SQLite file; made, with its folders, when it is not there.

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

    def __init__(self, path: str | Path) -> None:
        super().__init__(
            path,
            what="the vector store",
            table="vectors",
            schema=SCHEMA,
            application_id=APPLICATION_ID,
            when_damaged="delete the file; its vectors are made again",
        )

    def known(self, keys: Iterable[str]) -> set[str]:
        """Which of the keys have a vector."""
        return {key for [key] in self._rows("key", keys)}

    def get_many(self, keys: Iterable[str]) -> dict[str, Stored]:
        """What is stored under the keys; unknown ones are left out."""
        rows = self._rows("key, vector, tokens, evidence, keywords, trace", keys)
        return {key: Stored(np.frombuffer(blob, dtype=np.float32), *rest) for key, blob, *rest in rows}

    def put_many(self, records: Mapping[str, Stored]) -> int:
        """Keep vectors in one transaction and return how many were new; a known key keeps its first one."""
        rows = [
            (key, one.vector.astype(np.float32).tobytes(), one.tokens, one.evidence, one.keywords, one.trace)
            for key, one in records.items()
        ]
        with self._transaction() as database:
            new = database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?, ?, ?, ?)", rows).rowcount
        return max(new, 0)

    def merge(self, other: Path) -> int:
        """Take over the vectors of another file, such as another machine's shard, and return how many were new.

        Raises:
            InputError: When it is not there.
            CacheError: When it is no file of vectors.
        """
        if not other.is_file():
            raise InputError(f"{other} is not there", hint="name the folder of another run with --merge")
        if other.samefile(self.path):
            return 0  # SQLite would wait for itself
        VectorStore(other)
        with self._database() as database:
            database.execute("ATTACH DATABASE ? AS other", (str(other),))
            database.execute("BEGIN IMMEDIATE")
            new = database.execute("INSERT OR IGNORE INTO main.vectors SELECT * FROM other.vectors").rowcount
            database.execute("COMMIT")
        return max(new, 0)

    def _rows(self, columns: str, keys: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        wanted = list(dict.fromkeys(keys))
        with self._database() as database:
            for start in range(0, len(wanted), KEYS_AT_ONCE):
                some = json.dumps(wanted[start : start + KEYS_AT_ONCE])
                # The columns are this file's own words.
                query = f"SELECT {columns} FROM vectors WHERE key IN (SELECT value FROM json_each(?))"  # noqa: S608
                yield from database.execute(query, (some,)).fetchall()


def identity(embedder: ReasoningEmbedder, side: Side, encoding: Encoding, target: Modality | None) -> bytes:
    """Everything beside the sample that decides its vector: weights, prompts, budgets, decoding, side.

    The engine does not count: the same weights make the same vectors up to rounding.
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
    """Key of a sample's vector, 64 hex digits."""
    return sha256(identity + bytes.fromhex(digest)).hexdigest()


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of the samples; which part a sample is in follows from its content.

    Attributes:
        number: Which part, 1..of.
        of: How many parts there are.

    Raises:
        InputError: When there is no such part.

    Example:
        >>> Shard.parse("2/4")
        Shard(number=2, of=4)
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise InputError(f"there is no shard {self.number}/{self.of}", hint="write --shard 1/4 up to --shard 4/4")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "i/n".

        Raises:
            InputError: When it is something else.
        """
        number, slash, of = text.partition("/")
        if not slash or not number.strip().isdecimal() or not of.strip().isdecimal():
            raise InputError(f"{text!r} is no shard", hint="write --shard 1/4")
        return cls(int(number), int(of))

    def holds(self, key: str) -> bool:
        """Whether a vector's key belongs to this part."""
        return int(key[:12], 16) % self.of == self.number - 1
