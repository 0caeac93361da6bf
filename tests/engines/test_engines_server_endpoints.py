"""Several servers behind one name: work is shared, one that fails is passed by and comes back, nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_stub import GREEDY, INFO, KEY, SPEC, Reply, Stub, completion, reply, said, serving, words

from ume_retrieval.engines.server.client import Server, ServerBusy
from ume_retrieval.engines.server.endpoints import LONGEST_REST_S, Endpoints
from ume_retrieval.engines.server.options import ServerOptions
from ume_retrieval.engines.server.reasoner import ServerReasoner
from ume_retrieval.errors import ServerError
from ume_retrieval.util.retry import Retry

TEXTS = [f"chat {number}" for number in range(40)]


@pytest.fixture
def stubs() -> Iterator[list[Stub]]:
    with ExitStack() as stack:
        made = [stack.enter_context(serving()) for _ in range(3)]
        for stub in made:
            stub.answer = slowly
        yield made


def slowly(_: str, body: dict[str, Any]) -> Reply:
    time.sleep(0.02)
    return reply(completion(said(body) if body else ""))


def reasoner_on(stubs: list[Stub], **options: Any) -> ServerReasoner:
    chosen = ServerOptions(**{"api_key": KEY, "attempts": 5, "timeout_s": 5.0, "concurrency": 2, **options})
    retry = Retry(chosen.attempts, first_s=0.01)
    return ServerReasoner(Server([f"{stub.url}/v1" for stub in stubs], None, chosen, retry=retry), info=INFO, spec=SPEC)


def ask(reasoner: ServerReasoner) -> list[str]:
    return [one.text for one in reasoner.generate([words(text) for text in TEXTS], GREEDY)]


def test_work_is_shared_and_bounded_a_server(stubs: list[Stub]) -> None:
    assert ask(reasoner_on(stubs)) == TEXTS
    shares = [len(stub.posted()) for stub in stubs]
    assert sum(shares) == len(TEXTS)
    assert min(shares) >= len(TEXTS) // 6
    assert max(stub.busiest for stub in stubs) <= 6


def test_a_slow_server_gets_less(stubs: list[Stub]) -> None:
    def slower(path: str, body: dict[str, Any]) -> Reply:
        time.sleep(0.2)
        return slowly(path, body)

    stubs[1].answer = slower
    assert ask(reasoner_on(stubs)) == TEXTS
    assert len(stubs[1].posted()) < min(len(stubs[0].posted()), len(stubs[2].posted()))


@pytest.mark.parametrize("trouble", [None, (503, b"", {}), (200, b'{"choices": [{"mess', {}), (429, b"", {})])
def test_what_one_server_does_wrong_the_others_do(stubs: list[Stub], trouble: Reply | None) -> None:
    reasoner = reasoner_on(stubs)
    stubs[2].answer = lambda path, body: trouble
    assert ask(reasoner) == TEXTS
    assert len(stubs[2].posted()) <= 4  # it rests after the first failures, then one request tries it at a time
    assert len(stubs[0].posted()) + len(stubs[1].posted()) == len(TEXTS)


def test_a_server_that_is_back_is_asked_again(stubs: list[Stub]) -> None:
    reasoner = reasoner_on(stubs)
    stubs[0].answer = lambda path, body: (503, b"", {})
    ask(reasoner)
    before = len(stubs[0].posted())
    stubs[0].answer = slowly
    for endpoint in reasoner.server._endpoints.all:
        endpoint.rests_until = 0.0  # its rest is over
    assert ask(reasoner) == TEXTS
    assert len(stubs[0].posted()) - before > 4


def test_a_server_that_is_not_there_at_first_joins_later(stubs: list[Stub]) -> None:
    stubs[1].answer = lambda path, body: (503, b"", {})
    reasoner = reasoner_on(stubs)
    stubs[1].answer = slowly
    for endpoint in reasoner.server._endpoints.all:
        endpoint.rests_until = 0.0
    assert ask(reasoner) == TEXTS
    assert [path for path, _, _ in stubs[1].seen][:2] == ["/v1/models", "/v1/models"]
    assert stubs[1].posted()


def test_one_that_serves_another_model_is_an_error_at_once_or_passed_by(stubs: list[Stub]) -> None:
    stubs[1].model = "other"
    with pytest.raises(ServerError, match="does not serve one"):
        reasoner_on(stubs)
    stubs[1].answer = lambda path, body: (503, b"", {})
    reasoner = reasoner_on(stubs)
    stubs[1].answer = slowly
    for endpoint in reasoner.server._endpoints.all:
        endpoint.rests_until = 0.0
    assert ask(reasoner) == TEXTS
    assert not stubs[1].posted()


def test_when_none_answers_the_error_is_typed(stubs: list[Stub]) -> None:
    reasoner = reasoner_on(stubs, attempts=2)
    for stub in stubs:
        stub.answer = lambda path, body: (503, b"", {})
    with pytest.raises(ServerError, match=r"503.*2 attempts") as caught:
        reasoner.generate([words("hi")], GREEDY)
    assert caught.value.retryable
    with pytest.raises(ServerError, match="503"):
        reasoner_on(stubs, attempts=2)


@given(st.lists(st.booleans(), max_size=30), st.floats(0, 1e6))
def test_rests_are_bounded_and_end(outcomes: list[bool], asked_for: float) -> None:
    now = [0.0]
    endpoints = Endpoints(["http://a/v1", "http://b/v1"], clock=lambda: now[0])
    [first, _] = endpoints.all
    for works in outcomes:
        if works:
            with endpoints.this(first):
                pass
        else:
            with pytest.raises(ServerBusy), endpoints.this(first):
                raise ServerBusy("no", wait_s=asked_for)
            assert 0 < first.rests_until - now[0] <= LONGEST_REST_S
            assert not first.is_willing(now[0])
        now[0] += 0.5
    now[0] += LONGEST_REST_S
    assert first.is_willing(now[0])
    assert first.outstanding == 0
