"""Client of OpenAI-compatible servers: bounded concurrent requests with retries."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from ume_retrieval.engines.server.budget import AnswerTooLarge, AnswerTooSlow, ask_within, budgeted_client
from ume_retrieval.engines.server.endpoints import Endpoint, Endpoints
from ume_retrieval.engines.server.options import API_KEY, ServerOptions
from ume_retrieval.errors import InputError, MissingExtra, ServerError, Stopped, UmeError
from ume_retrieval.util.json_text import parse_json
from ume_retrieval.util.retry import BUSY_STATUS, Busy, Retry, retry_after
from ume_retrieval.util.threads import side_by_side

T = TypeVar("T")

Dialect: TypeAlias = Literal["vllm", "openai"]
"""Extensions of the API that a server understands: those of vLLM for media and constrained decoding, or none."""

BUSY = BUSY_STATUS | {409}
REFUSED = {400, 413, 422}
TRUST = ("--trust-request-mm-kwargs", "--trust-request-chat-template")
"""Switches of vLLM that let a request say that its pictures are resized already, and how its videos are written."""

MOST_TOKENS = 2**31

MOST_WORDS = 200
"""Characters of a server's own explanation that an error shows."""


class ServerBusy(Busy, ServerError):
    """The server is busy or unreachable; the request may succeed later."""

    given_up: ClassVar[type[UmeError]] = ServerError


class Server:
    """One model on one server, or on several alike.

    A request goes to the server with the fewest open requests. A server that fails is left alone for a while and its
    requests go to the others; a server that cannot be reached at first joins later.

    Args:
        urls: Addresses with `/v1`, at least one.
        model: Name of the model on the servers; None takes the only served one.
        options: Key, concurrency of each server, patience.
        retry: How requests are tried again; by default as the options say.

    Raises:
        ServerError: When no server can be reached, or one refuses the key or does not serve the model.
    """

    def __init__(
        self, urls: Sequence[str], model: str | None, options: ServerOptions, *, retry: Retry | None = None
    ) -> None:
        if find_spec("httpx") is None:
            raise MissingExtra("engine 'server' needs httpx", hint="pip install 'ume-retrieval[server]'")
        self._urls = tuple(urls)
        self._concurrency = options.concurrency * len(urls)
        self._key = options.api_key
        self._options = options
        self._retry = retry or Retry(options.attempts)
        self._connect()
        self.model, self.dialect = self._choose(model)

    def _connect(self) -> None:
        """Begin with connections, counts and locks of this process."""
        self._process = os.getpid()
        self._endpoints = Endpoints(self._urls)
        self._http = budgeted_client(self._options, self._concurrency)
        weakref.finalize(self, self._http.close)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs to connect by itself; it holds the key, in the clear."""
        own = ("_process", "_endpoints", "_http")
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._connect()

    def ask(
        self, path: str, requests: Sequence[Callable[[], dict[str, Any]]], read: Callable[[Any], T]
    ) -> Iterator[tuple[int, T | UmeError]]:
        """Send requests concurrently.

        Args:
            path: After `/v1`, such as "/embeddings".
            requests: Each makes the body of one request when its turn comes, so that few pictures are encoded at once.
            read: From an answer's JSON to a value; KeyError, IndexError, TypeError or ValueError mark a broken answer.

        Yields:
            Position of a request with its answer or its error, in the order in which they arrive.
        """

        def one(request: Callable[[], dict[str, Any]], stopped: threading.Event) -> T | UmeError:
            def attempt() -> T:
                if stopped.is_set():  # after an interrupt no further request is sent
                    raise Stopped
                return self._post(path, read, body)

            try:
                body = json.dumps(request()).encode()
                return self._retry.call(attempt)
            except UmeError as error:
                return error

        if self._process != os.getpid():  # connections of the process that this one was forked from would be shared
            self._connect()
        with closing(side_by_side([partial(one, request) for request in requests], self._concurrency)) as answers:
            yield from answers

    def _choose(self, model: str | None) -> tuple[str, Dialect]:
        surveyed = self._retry.call(self._survey)
        first, served = next(iter(surveyed.items()))
        if model is None:
            if len(served) != 1:
                raise ServerError(f"{first.url} serves {len(served)} models", hint="name one of them in ServerOptions")
            model = next(iter(served))
        for endpoint, models in surveyed.items():
            if model not in models:
                near = ", ".join(sorted(models)[:5])
                raise ServerError(f"{endpoint.url} does not serve {model}", hint=f"it serves {near}")
            endpoint.is_known = True
        return model, "vllm" if served[model] == "vllm" else "openai"

    def _survey(self) -> dict[Endpoint, dict[str, str]]:
        """Return the models of each server that can be reached."""
        surveyed: dict[Endpoint, dict[str, str]] = {}
        missed: Busy | None = None
        for endpoint in self._endpoints.all:
            try:
                with self._endpoints.this(endpoint):
                    surveyed[endpoint] = self._send(endpoint, "GET", "/models", _read_models)
            except Busy as busy:
                missed = busy
        if missed is not None and not surveyed:
            raise missed
        return surveyed

    def _post(self, path: str, read: Callable[[Any], T], body: bytes) -> T:
        with self._endpoints.least_busy() as endpoint:
            if not endpoint.is_known:
                if self.model not in self._send(endpoint, "GET", "/models", _read_models):
                    raise ServerBusy(f"{endpoint.url} does not serve {self.model}", hint="start it with that model")
                endpoint.is_known = True
            return self._send(endpoint, "POST", path, read, body)

    def _send(
        self, endpoint: Endpoint, method: str, path: str, read: Callable[[Any], T], body: bytes | None = None
    ) -> T:
        import httpx

        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            request = self._http.build_request(method, endpoint.url + path, content=body, headers=headers)
            answer = ask_within(self._http, request, self._options.answer_bytes, self._options.answer_s)
        except AnswerTooLarge:
            raise ServerError(
                f"{endpoint.url} sent more than {self._options.answer_bytes} bytes",
                hint="is it an OpenAI-compatible server? else raise answer_bytes",
            ) from None
        except AnswerTooSlow:
            # Not `ServerBusy`: with every attempt the same time would pass.
            raise ServerError(
                f"{endpoint.url} took more than {self._options.answer_s:g} s to answer",
                hint="ask for fewer tokens, or raise answer_s",
                retryable=True,
            ) from None
        except httpx.TimeoutException:
            raise ServerBusy(
                f"{endpoint.url} was silent for too long", hint="ask less at a time, or raise timeout_s"
            ) from None
        except (httpx.InvalidURL, UnicodeError):  # a host such as "a..b"
            raise InputError(f"{endpoint.url} is not a valid address", hint="fix the server's address") from None
        except httpx.DecodingError:  # compressed, and broken on its way
            raise _half(endpoint.url + path) from None
        except httpx.RequestError as error:
            raise ServerBusy(
                f"{endpoint.url} cannot be reached: {self._words(str(error))}", hint="is it running?"
            ) from None
        if answer.status != httpx.codes.OK:
            said = answer.body.decode("utf-8", "replace")
            raise self._refusal(endpoint.url, answer.status, said, answer.retry_after)
        try:
            return read(parse_json(answer.body))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):
            raise _half(endpoint.url + path) from None

    def _refusal(self, url: str, status: int, text: str, wait: str | None) -> UmeError:
        said = f"{url} answered {status}: {self._words(_explanation(text))}"
        if status in BUSY:
            return ServerBusy(said, hint="ask less at a time (concurrency), or later", wait_s=retry_after(wait))
        if status in {401, 403}:
            return ServerError(said, hint=f"set {API_KEY} to a key that the server takes")
        if any(switch in said for switch in TRUST):
            return ServerError(said, hint=f"start vLLM with {' '.join(TRUST)}")
        if status in REFUSED:
            return InputError(said, hint="is the input too long for the server's model?")
        return ServerError(said, hint="is this the address of an OpenAI-compatible server, and its model right?")

    def _words(self, text: str) -> str:
        """Return a server's words on one line, shortened, and without the key in case they repeat it."""
        key = self._options.key
        bare = text.replace(key, "***") if key else text
        line = " ".join("".join(letter if letter.isprintable() else " " for letter in bare).split())
        return line[:MOST_WORDS] or "no explanation"


def _half(address: str) -> ServerBusy:
    return ServerBusy(f"{address} sent an incomplete answer", hint="is it an OpenAI-compatible server?")


def token_count(usage: Any, name: str) -> int:
    """Return a count of an answer's usage.

    Raises:
        ValueError: When it is not a number that a server could have counted.
    """
    count = int(usage[name])
    if not 0 <= count < MOST_TOKENS:
        raise ValueError("not a count of tokens")
    return count


def _read_models(answer: Any) -> dict[str, str]:
    """Return the names of the served models, each with its owner."""
    return {str(model["id"]): str(model.get("owned_by", "")) for model in answer["data"]}


def _explanation(text: str) -> str:
    """Return the message in an error's JSON, or the text unchanged."""
    try:
        error = parse_json(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return text
