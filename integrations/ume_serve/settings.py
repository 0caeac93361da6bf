"""Settings of the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ume_retrieval.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is served, to whom, and within which bounds.

    Attributes:
        store: A directory or a Qdrant server's address.
        collection: Name of the collection.
        model: Preset, hub id or folder of the Embedder that the collection was made with.
        reasoner: The same for the Reasoner; "auto" as the Embedder says, None for direct search only.
        device: Where the models run, see `ReasoningEmbedder.from_pretrained`.
        engine: What runs them.
        media: Files and folders that `POST /api/index` indexes; clients never name paths.
        hosts: Values of the `Host` header, without port, that are answered; others are refused (DNS rebinding).
        keys: API keys; empty admits everyone who can connect.
        max_body_bytes: Most bytes of a request.
        max_pixels: Most pixels of an uploaded picture or video frame.
        max_queries: Most inputs that wait for a model; further requests get status 503.
        max_requests: Most requests that are handled at the same time.
        body_timeout_s: Seconds that a request may take to send its body.
        requests_per_minute: Most requests per key, or per address without keys; None sets no bound.
        isolate: Decode files in worker processes with limits on time and memory.

    Raises:
        InputError: When a bound is not positive.

    Example:
        >>> Settings(store="vectors").hosts
        ('127.0.0.1', 'localhost', '[::1]')
    """

    store: str = "ume-store"
    collection: str = "default"
    model: str = "ume-tiny"
    reasoner: str | None = "auto"
    device: str = "auto"
    engine: str = "auto"
    media: tuple[Path, ...] = ()
    hosts: tuple[str, ...] = LOOPBACK
    keys: tuple[str, ...] = field(default=(), repr=False)
    max_body_bytes: int = 32_000_000
    max_pixels: int = 50_000_000
    max_queries: int = 256
    max_requests: int = 512
    body_timeout_s: float = 30.0
    requests_per_minute: int | None = None
    isolate: bool = True

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_pixels", "max_queries", "max_requests", "body_timeout_s"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be greater than 0")


def read_keys(path: Path) -> tuple[str, ...]:
    """Read API keys from a file, one per line; empty lines and lines that begin with # are left out.

    Raises:
        InputError: When the file cannot be read or has no key of at least 16 characters.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the API keys in {path}", hint="check --api-key-file") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not keys or any(len(key) < 16 or not key.isascii() for key in keys):
        raise InputError(
            f"{path} must have one API key a line, each of at least 16 ASCII characters",
            hint="make one with: openssl rand -hex 24",
        )
    return keys
