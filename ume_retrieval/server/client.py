"""A server that speaks the OpenAI API: bounded concurrent requests, each tried again where that may help."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from ume_retrieval.errors import InputError, MissingExtra, ServerError, SomeFailed, UmeError
from ume_retrieval.retry import Busy, Retry, retry_after
from ume_retrieval.server.options import API_KEY, ServerOptions

T = TypeVar("T")

Dialect: TypeAlias = Literal["vllm", "openai"]
"""What a server understands beyond the standard: vLLM's settings of media and forms, or nothing."""

BUSY = {408, 409, 425, 429, 500, 502, 503, 504}
REFUSED = {400, 413, 422}
CONNECT_S = 10.0
TRUST = "--trust-request-mm-kwargs"
"""vLLM's own switch; without it a server takes no settings of pictures, and would resize them once more."""

MOST_WORDS = 200
"""Characters of a server's own explanation that an error shows."""


class ServerBusy(Busy, ServerError):
    """A request that may succeed later."""

    given_up: ClassVar[type[UmeError]] = ServerError


class Server:
    """One model on one server.

    Args:
        url: Address with `/v1`.
        model: What the server calls the model; None takes the only one that it serves.
        options: Key, concurrency, patience.
        retry: How requests are tried again; by default as the options say.

    Raises:
        ServerError: When the server cannot be reached, refuses the key, or does not serve the model.
    """

    def __init__(self, url: str, model: str | None, options: ServerOptions, *, retry: Retry | None = None) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("engine 'server' needs httpx", hint="pip install 'ume-retrieval[server]'") from error
        self.url = url
        self._key = options.api_key
        self._options = options
        self._retry = retry or Retry(options.attempts)
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {options.key}"} if options.key else {},
            timeout=httpx.Timeout(options.timeout_s, connect=min(CONNECT_S, options.timeout_s)),
            limits=httpx.Limits(max_connections=options.concurrency),
        )
        weakref.finalize(self, self._http.close)
        self.model, self.dialect = self._choose(model)

    def ask(self, path: str, requests: Sequence[Callable[[], dict[str, Any]]], read: Callable[[Any], T]) -> list[T]:
        """Send requests side by side; the answer to `requests[i]` is at position i.

        Args:
            path: After `/v1`, such as "/embeddings".
            requests: Each makes the body of one request when its turn comes, so that few pictures are encoded at once.
            read: From an answer's JSON to a value; KeyError, IndexError, TypeError or ValueError say that it is broken.

        Raises:
            UmeError: Of the only request, when it fails.
            SomeFailed: When some of several fail; it carries the answers to the others.
        """

        def one(request: Callable[[], dict[str, Any]]) -> T | UmeError:
            try:
                body = json.dumps(request()).encode()
                return self._retry.call(lambda: self._send("POST", path, read, body))
            except UmeError as error:
                return error

        with ThreadPoolExecutor(min(self._options.concurrency, max(1, len(requests)))) as workers:
            waiting = [workers.submit(one, request) for request in requests]
            try:
                outcomes = [future.result() for future in waiting]
            except BaseException:  # an interrupt sends nothing that is not yet on its way
                workers.shutdown(wait=False, cancel_futures=True)
                raise
        failed = [outcome for outcome in outcomes if isinstance(outcome, UmeError)]
        if failed and len(outcomes) == 1:
            raise failed[0]
        if failed:
            raise SomeFailed(outcomes) from failed[0]
        return [outcome for outcome in outcomes if not isinstance(outcome, UmeError)]

    def _choose(self, model: str | None) -> tuple[str, Dialect]:
        served = self._retry.call(lambda: self._send("GET", "/models", _read_models))
        if model is None:
            if len(served) != 1:
                raise ServerError(
                    f"{self.url} serves {len(served)} models",
                    hint="name one of them in ServerOptions",
                )
            model = next(iter(served))
        elif model not in served:
            near = ", ".join(sorted(served)[:5])
            raise ServerError(f"{self.url} does not serve {model}", hint=f"it serves {near}")
        return model, "vllm" if served[model] == "vllm" else "openai"

    def _send(self, method: str, path: str, read: Callable[[Any], T], body: bytes | None = None) -> T:
        import httpx

        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            response = self._http.request(method, self.url + path, content=body, headers=headers)
        except httpx.TimeoutException:
            raise ServerBusy(
                f"{self.url} was silent for too long", hint="ask less at a time, or raise timeout_s"
            ) from None
        except httpx.TransportError as error:
            raise ServerBusy(
                f"{self.url} cannot be reached: {self._words(str(error))}", hint="is it running?"
            ) from None
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response.status_code, response.text, response.headers.get("retry-after"))
        try:
            return read(response.json())
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise ServerBusy(
                f"{self.url}{path} gave half an answer", hint="is it an OpenAI-compatible server?"
            ) from None

    def _refusal(self, status: int, text: str, wait: str | None) -> UmeError:
        said = f"{self.url} answered {status}: {self._words(_explanation(text))}"
        if status in BUSY:
            return ServerBusy(said, hint="ask less at a time (concurrency), or later", wait_s=retry_after(wait))
        if status in {401, 403}:
            return ServerError(said, hint=f"set {API_KEY} to a key that the server takes")
        if TRUST in said:
            return ServerError(said, hint=f"start vLLM with {TRUST}")
        if status in REFUSED:
            return InputError(said, hint="is the input too long for the server's model?")
        return ServerError(said, hint="is this the address of an OpenAI-compatible server, and its model right?")

    def _words(self, text: str) -> str:
        """What a server says, on one line, cut, and without the key in case it repeats it."""
        key = self._options.key
        bare = text.replace(key, "***") if key else text
        line = " ".join("".join(letter if letter.isprintable() else " " for letter in bare).split())
        return line[:MOST_WORDS] or "no explanation"


def _read_models(answer: Any) -> dict[str, str]:
    """Names of the models that are served, each with who says so."""
    return {str(model["id"]): str(model.get("owned_by", "")) for model in answer["data"]}


def _explanation(text: str) -> str:
    """The sentence in an error's JSON, or the text as it is."""
    try:
        error = json.loads(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return text
