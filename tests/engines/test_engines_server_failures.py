"""What a server does wrong: each ends in a retry or an error."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_stub import (
    EMBED_RL,
    GREEDY,
    INFO,
    KEY,
    Reply,
    Stub,
    completion,
    connect,
    embedding,
    reasoner_on,
    reply,
    said,
    words,
)

from ume_retrieval import InputError, ReasoningEmbedder, TCot, UmeError
from ume_retrieval.chat import Chat, Message, TextPart
from ume_retrieval.engines.base import Generation
from ume_retrieval.engines.server.client import Server, ServerBusy
from ume_retrieval.engines.server.embedder import ServerEmbedder
from ume_retrieval.engines.server.options import ServerOptions
from ume_retrieval.errors import ServerError
from ume_retrieval.pipeline.reasoning import ASKED_AT_ONCE
from ume_retrieval.tcot import render
from ume_retrieval.testing import fake_embedder
from ume_retrieval.util.retry import Retry, retry_after

# Trouble that passes is waited for.


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(stub: Stub, naps: list[float], status: int) -> None:
    reasoner = reasoner_on(stub, naps)
    troubles = iter([status, status])
    stub.answer = lambda path, body: reply(completion("at last"), next(troubles, 200))
    assert [one.text for one in reasoner.generate([words("hi")], GREEDY)] == ["at last"]
    assert naps == [0.5, 1.0]
    assert len(stub.posted()) == 3


def test_a_lost_connection_is_asked_again(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    answers = iter([None, reply(completion("back"))])
    stub.answer = lambda path, body: next(answers)
    assert reasoner.generate([words("hi")], GREEDY)[0].text == "back"
    assert len(naps) == 1


@pytest.mark.parametrize(
    "half",
    [
        (200, b'{"choices": [{"mess', {}),
        (200, b'{"choices": [{"mess', {"Content-Length": "4000"}),
        (200, b"", {}),
        (200, b"<html>please log in</html>", {}),
        (200, b"[]", {}),
        (200, b"null", {}),
        (200, b'{"choices": []}', {}),
        (200, b'{"choices": [{"message": null, "finish_reason": "stop"}], "usage": {}}', {}),
        (200, b"\xff\xfe\x00", {}),
        (200, b"no gzip", {"Content-Encoding": "gzip"}),
    ],
)
def test_half_an_answer_is_asked_for_again(stub: Stub, naps: list[float], half: Reply) -> None:
    reasoner = reasoner_on(stub, naps)
    answers = iter([half, reply(completion("whole"))])
    stub.answer = lambda path, body: next(answers)
    assert reasoner.generate([words("hi")], GREEDY)[0].text == "whole"
    assert len(naps) == 1


def test_half_answers_for_ever_are_a_typed_error(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: (200, b'{"choices": [{"mess', {})
    with pytest.raises(ServerError, match=r"incomplete answer \(4 attempts\)") as caught:
        reasoner.generate([words("hi")], GREEDY)
    assert caught.value.retryable
    assert naps == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("values", [(), (0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_what_is_no_vector_is_a_typed_error(stub: Stub, naps: list[float], values: tuple[float, ...]) -> None:
    stub.answer = lambda path, body: reply(embedding(*values))
    with pytest.raises(ServerError, match="incomplete answer"):
        ServerEmbedder(connect(stub, naps, attempts=1), info=INFO, spec=EMBED_RL)


def test_silence_is_a_typed_error_in_time(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps, timeout_s=0.2, attempts=2)
    release = threading.Event()
    stub.answer = lambda path, body: reply(completion("late")) if release.wait(20) else None
    start = time.perf_counter()
    with pytest.raises(ServerError, match=r"silent for too long \(2 attempts\)") as caught:
        reasoner.generate([words("hi")], GREEDY)
    release.set()
    assert caught.value.retryable
    assert time.perf_counter() - start < 10


def test_nobody_there_is_a_typed_error(naps: list[float]) -> None:
    with pytest.raises(ServerError, match="cannot be reached") as caught:
        Server(["http://127.0.0.1:9/v1"], None, ServerOptions(attempts=2), retry=Retry(2, sleep=naps.append))
    assert caught.value.retryable
    assert len(naps) == 1


@pytest.mark.parametrize(("header", "wait"), [("7", 7.0), ("900", 30.0), ("soon", 0.5), ("0", 0.5)])
def test_retry_after_is_kept_within_reason(stub: Stub, naps: list[float], header: str, wait: float) -> None:
    reasoner = reasoner_on(stub, naps)
    answers = iter([reply({}, 429, Retry_After=header), reply(completion("now"))])
    stub.answer = lambda path, body: next(answers)
    assert reasoner.generate([words("hi")], GREEDY)[0].text == "now"
    assert naps == [wait]


def test_retry_after_reads_dates() -> None:
    assert 55 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60


@given(st.text(max_size=40))
def test_retry_after_takes_any_text(header: str) -> None:
    assert retry_after(header) >= 0


@given(st.integers(1, 12), st.floats(0, 1, exclude_max=True), st.floats(0, 1e6))
def test_waits_grow_and_stay_bounded(attempts: int, luck: float, wanted: float) -> None:
    waits: list[float] = []

    def never() -> None:
        raise ServerBusy("no", wait_s=wanted)

    with pytest.raises(ServerError):
        Retry(attempts, sleep=waits.append, uniform=lambda: luck).call(never)
    assert len(waits) == attempts - 1
    assert waits == sorted(waits)
    assert all(min(wanted, 30.0) <= wait <= 30.0 for wait in waits)


# Trouble that stays is said at once.


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_said_at_once(stub: Stub, naps: list[float], status: int) -> None:
    stub.answer = lambda path, body: reply({"error": {"message": f"Incorrect API key provided: {KEY}"}}, status)
    with pytest.raises(ServerError, match="Incorrect API key provided") as caught:
        connect(stub, naps)
    assert "UME_API_KEY" in caught.value.hint
    assert not caught.value.retryable
    assert KEY not in caught.value.message
    assert (len(stub.seen), naps) == (1, [])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_chat_is_an_input_error(stub: Stub, naps: list[float], status: int) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: reply({"error": {"message": "4096 tokens,\nyours has 9000"}}, status)
    with pytest.raises(InputError, match="4096 tokens, yours has 9000"):
        reasoner.generate([words("hi")], GREEDY)
    assert naps == []


@pytest.mark.parametrize("status", [301, 404, 418])
def test_other_answers_are_typed_errors(stub: Stub, naps: list[float], status: int) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: reply("no such thing", status, Location="http://elsewhere.invalid/")
    with pytest.raises(ServerError, match=str(status)):
        reasoner.generate([words("hi")], GREEDY)
    assert naps == []


def test_a_vllm_server_that_trusts_no_settings_is_told_how_to(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: reply({"error": {"message": "Start with --trust-request-mm-kwargs"}}, 400)
    with pytest.raises(ServerError) as caught:
        reasoner.generate([words("hi")], GREEDY)
    assert "--trust-request-mm-kwargs" in caught.value.hint


def test_what_a_server_says_is_one_short_line(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: (404, b"\x1b[31mred\nlines " * 500, {})
    with pytest.raises(ServerError) as caught:
        reasoner.generate([words("hi")], GREEDY)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


def test_the_model_has_to_be_served(stub: Stub) -> None:
    with pytest.raises(ServerError, match="does not serve two") as caught:
        Server([f"{stub.url}/v1"], "two", ServerOptions())
    assert "one" in caught.value.hint


def map_words(*texts: str) -> list[Chat]:
    return [words(text) for text in texts]


# One bad chat never loses the others, nor what they cost.


def test_a_failure_keeps_the_answers_to_the_others(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: (
        reply({"error": "too long"}, 400) if said(body) == "bad" else reply(completion(said(body)))
    )
    first, refused, last = (outcome for _, outcome in sorted(reasoner.replies(map_words("a", "bad", "c"), GREEDY)))
    assert isinstance(first, Generation)
    assert isinstance(last, Generation)
    assert (first.text, last.text) == ("a", "c")
    assert isinstance(refused, InputError)
    with pytest.raises(InputError, match="too long"):
        reasoner.generate(map_words("a", "bad", "c"), GREEDY)


def test_an_answer_that_cannot_be_unpacked_keeps_the_others(stub: Stub, naps: list[float]) -> None:
    """It ended the whole run with an error of the HTTP client's own."""
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: (
        (200, b"no gzip", {"Content-Encoding": "gzip"}) if said(body) == "bad" else reply(completion(said(body)))
    )
    first, broken, last = (outcome for _, outcome in sorted(reasoner.replies(map_words("a", "bad", "c"), GREEDY)))
    assert isinstance(first, Generation)
    assert isinstance(last, Generation)
    assert (first.text, last.text) == ("a", "c")
    assert isinstance(broken, ServerError)
    assert broken.retryable
    assert len(naps) == 3


def test_the_pipeline_names_the_bad_item_and_asks_for_each_once(stub: Stub, naps: list[float]) -> None:
    tcot = render(TCot("Seen.", "Yes.", "a thing", keywords=("thing",)))
    stub.answer = lambda path, body: (
        None
        if path == "/v1/models"
        else reply({"error": "too long"}, 400)
        if "bad" in said(body)
        else reply(completion(tcot))
    )
    pipeline = fake_embedder(reasoner=reasoner_on(stub, naps))
    items = ["a", "b", "bad", "c", "d"]
    result = pipeline.encode_corpus(items, return_traces=True, strict=False)
    assert [failure.index for failure in result.failures] == [2]
    assert result.failures[0].error == "invalid_input"
    assert np.isfinite(result.vectors).all(axis=1).tolist() == [True, True, False, True, True]
    assert sorted(said(body) for body in stub.posted()) == sorted(items)
    with pytest.raises(InputError, match="too long"):
        pipeline.encode_corpus(items)


def test_an_embedders_failure_keeps_the_rows_of_the_others(stub: Stub, naps: list[float]) -> None:
    stub.answer = lambda path, body: (
        None if path == "/v1/models" else reply({}, 400) if "bad" in json.dumps(body) else reply(embedding(3.0, 4.0))
    )
    embedder = ServerEmbedder(connect(stub, naps), info=INFO, spec=EMBED_RL)
    chats = [(*words(text), Message("assistant", (TextPart("<emb>"),))) for text in ("a", "bad")]
    with pytest.raises(InputError):
        embedder.embed(chats)
    made = embedder.embed_partial(chats)
    row, refused = made.rows
    assert not isinstance(row, UmeError)
    np.testing.assert_allclose(row, [0.6, 0.8], rtol=1e-6)
    assert isinstance(refused, InputError)
    assert made.tokens == 3
    result = ReasoningEmbedder(embedder).encode_corpus(
        ["a", "bad", "c"], reasoning="never", strict=False, return_traces=True
    )
    assert (result.usage.embedder_calls, result.usage.embedded_tokens) == (2, 6)


# Replies come as they are ready.


def test_a_reply_does_not_wait_for_slower_ones(stub: Stub, naps: list[float]) -> None:
    read = threading.Event()

    def answer(path: str, body: dict[str, Any]) -> Reply | None:
        if path == "/v1/models":
            return None
        if said(body) == "slow":
            assert read.wait(10)
        return reply({"error": "too long"}, 400) if said(body) == "bad" else reply(completion(said(body)))

    stub.answer = answer
    replies = reasoner_on(stub, naps).replies([words(text) for text in ("slow", "a", "bad", "b")], GREEDY)
    early = dict([next(replies), next(replies), next(replies)])
    assert early.keys() == {1, 2, 3}
    read.set()
    outcomes = early | dict(replies)
    assert [getattr(outcomes[n], "text", "") for n in range(4)] == ["slow", "a", "", "b"]
    assert isinstance(outcomes[2], InputError)


def test_who_stops_reading_asks_for_nothing_more(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps, concurrency=2)
    replies = reasoner.replies([words(str(number)) for number in range(50)], GREEDY)
    next(replies)
    replies.close()
    assert len(stub.posted()) < 50


INTERRUPTED = """
import sys
from ume_retrieval.engines.server.client import Server
from ume_retrieval.engines.server.options import ServerOptions

server = Server([sys.argv[1]], None, ServerOptions(concurrency=4))
try:
    list(server.ask("/embeddings", [dict] * 8, dict))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("wait_s", [0.0, 20.0], ids=["silent", "asks to be left alone"])
def test_an_interrupt_ends_the_process_and_sends_nothing_more(stub: Stub, wait_s: float) -> None:
    release = threading.Event()

    def answer(path: str, body: dict[str, Any]) -> Reply | None:
        if path != "/v1/models" and not wait_s:
            release.wait(60)
        return reply({}, 503, Retry_After=str(int(wait_s))) if path != "/v1/models" else None

    stub.answer = answer
    command = [sys.executable, "-c", INTERRUPTED, f"{stub.url}/v1"]
    with subprocess.Popen(  # noqa: S603  # our own interpreter and script
        command, stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while len(stub.posted()) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)  # so that what was answered is being waited for
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=10)
    release.set()
    assert out == "interrupted\n"
    assert len(stub.posted()) == 4


def test_the_pipeline_asks_for_all_side_by_side(stub: Stub, naps: list[float]) -> None:
    """More than `ASKED_AT_ONCE`: a reply that is slow to come holds no other back."""
    count = ASKED_AT_ONCE + 8
    arrived = threading.Semaphore(0)

    def answer(path: str, body: dict[str, Any]) -> Reply | None:
        if path == "/v1/models":
            return None
        if said(body) == "item 0":  # answered when all others are
            for _ in range(count - 1):
                assert arrived.acquire(timeout=20)
        else:
            arrived.release()
        return reply(completion(render(TCot("Seen.", "Yes.", "a thing", keywords=("thing",)))))

    stub.answer = answer
    pipeline = fake_embedder(reasoner=reasoner_on(stub, naps, timeout_s=60.0))
    result = pipeline.encode_corpus([f"item {number}" for number in range(count)], return_traces=True)
    assert result.usage.reasoner_calls == count
