"""Addresses, key, concurrency and patience of the engine "server"."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from ume_retrieval.errors import InputError

REASONER_URL = "UME_REASONER_URL"
EMBEDDER_URL = "UME_EMBEDDER_URL"
RERANKER_URL = "UME_RERANKER_URL"
REASONER_MODEL = "UME_REASONER_MODEL"
EMBEDDER_MODEL = "UME_EMBEDDER_MODEL"
RERANKER_MODEL = "UME_RERANKER_MODEL"
API_KEY = "UME_API_KEY"
"""Environment variables that `ServerOptions.from_environment` reads; the only way in for a command line's key."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Addresses, one or several a role, of servers that speak the OpenAI API (vLLM, SGLang, a vendor's own).

    vLLM has to be started with `--trust-request-mm-kwargs --trust-request-chat-template`: a request says that its
    pictures are resized already, when the frames of its video were, and that a video is written as it was published. An
    Embedder's server needs `--runner pooling --convert embed` besides.

    Attributes:
        reasoner_url: Address of the Reasoner's server, with or without `/v1`; it needs `/v1/chat/completions`. Several,
            with commas between them, share the work; one that fails is passed by until it is back.
        embedder_url: The same of the Embedder; it needs `/v1/embeddings` with `messages`, as vLLM has it.
        reasoner_model: Name of the Reasoner on its server; None takes the only served model.
        embedder_model: Name of the Embedder on its server; None takes the only served model.
        api_key: Sent to both as a bearer token; never shown, logged or kept.
        concurrency: Most requests on their way to a server at a time, >= 1.
        timeout_s: Seconds of silence after which a request counts as lost, > 0.
        answer_s: Most seconds of a whole answer, from the connection to its last byte, > 0.
        answer_bytes: Most bytes of an answer, > 0.
        attempts: Most tries of a request in all, >= 1; after a busy or lost server or an incomplete answer.
        reranker_url: Address of the reranker's server, or several; it needs `/v1/rerank`.
        reranker_model: Name of the reranker on its server; None takes the only served model.

    Example:
        >>> ServerOptions("http://127.0.0.1:8000", api_key="s3cret")  # doctest: +ELLIPSIS
        ServerOptions(reasoner_url='http://127.0.0.1:8000', ..., api_key=SecretStr('**********'), ...)
    """

    reasoner_url: str | None = None
    embedder_url: str | None = None
    reasoner_model: str | None = None
    embedder_model: str | None = None
    api_key: SecretStr | str | None = None
    concurrency: int = 32
    timeout_s: float = 300.0
    attempts: int = 6
    answer_s: float = 900.0
    answer_bytes: int = 64 * 1024**2
    reranker_url: str | None = None
    reranker_model: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.api_key, str):
            object.__setattr__(self, "api_key", SecretStr(self.api_key))
        patient = self.timeout_s > 0 and self.answer_s > 0  # False for "not a number"
        if min(self.concurrency, self.attempts, self.answer_bytes) < 1 or not patient:
            raise InputError(
                "concurrency, attempts and answer_bytes need 1 or more, timeout_s and answer_s more than 0"
            )
        if not self.key.isascii() or not all(map(str.isprintable, self.key)):
            raise InputError("the API key has characters that no header can carry", hint="look for a line break in it")

    @property
    def key(self) -> str:
        """Return the key in the clear, for the request's header and nothing else; "" without a key."""
        return self.api_key.get_secret_value() if isinstance(self.api_key, SecretStr) else ""

    @classmethod
    def from_environment(cls) -> ServerOptions:
        """Read `UME_REASONER_URL`, `…_MODEL`, and the same of EMBEDDER and RERANKER; and `UME_API_KEY`."""
        return cls(
            reasoner_url=os.environ.get(REASONER_URL),
            embedder_url=os.environ.get(EMBEDDER_URL),
            reasoner_model=os.environ.get(REASONER_MODEL),
            embedder_model=os.environ.get(EMBEDDER_MODEL),
            api_key=os.environ.get(API_KEY),
            reranker_url=os.environ.get(RERANKER_URL),
            reranker_model=os.environ.get(RERANKER_MODEL),
        )


def base_urls(addresses: str | None, variable: str) -> tuple[str, ...]:
    """Return the addresses that API paths are appended to.

    Args:
        addresses: One, or several with commas between them, with or without `/v1`.
        variable: Name of the environment variable, for the error.

    Raises:
        InputError: When the address is missing, is not http, or carries a password.

    Example:
        >>> base_urls("http://127.0.0.1:8000/, http://127.0.0.1:8001/v1", EMBEDDER_URL)
        ('http://127.0.0.1:8000/v1', 'http://127.0.0.1:8001/v1')
    """
    several = [address.strip() for address in (addresses or "").split(",") if address.strip()]
    if not several:
        raise InputError(
            "engine 'server' was given no address",
            hint=f"set {variable}, or pass server=ServerOptions(reasoner_url=..., embedder_url=...)",
        )
    return tuple(dict.fromkeys(_base_url(address, variable) for address in several))


def _base_url(address: str, variable: str) -> str:
    try:
        parts = urlsplit(address)
        # Reading the port says whether it is one.
        named = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named:
        raise InputError("a server's address is http:// or https://, a host and perhaps a port", hint=f"fix {variable}")
    if parts.username or parts.password or parts.query:
        raise InputError("a server's address carries a password or a query", hint=f"put the key into {API_KEY}")
    trimmed = address.rstrip("/")
    return trimmed if parts.path.rstrip("/").endswith("/v1") else f"{trimmed}/v1"
