"""Ids, traces as payloads, paths, fusion and grouping: pure values."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_qdrant import Filter, SearchParams, open_store
from ume_qdrant.searching.fusion import Place, diversify, fuse, group
from ume_qdrant.stores.client_errors import BusyError
from ume_qdrant.stores.filters import as_qdrant_filter
from ume_qdrant.stores.schema import clean, evidence_of, point_id, tcot_of, to_payload, within
from ume_qdrant.stores.sources import item_of, source_path
from ume_retrieval import Clip, InputError, Item, Page, StoreError, TCot, Trace
from ume_retrieval.media import display_name
from ume_retrieval.tcot import Box, EvidenceRef, Problem
from ume_retrieval.util.retry import Retry

PLACES = st.fixed_dictionaries(
    {
        "source": st.text(max_size=8),
        "digest": st.text("0123456789abcdef", min_size=4, max_size=4),
        "start_s": st.none() | st.floats(0, 99, width=16),
        "end_s": st.none() | st.floats(0, 99, width=16),
        "page": st.none() | st.integers(1, 99),
    }
)


@given(one=PLACES, other=PLACES)
def test_ids_are_equal_exactly_when_source_place_and_content_are(
    one: dict[str, object], other: dict[str, object]
) -> None:
    def key(place: dict[str, object]) -> str:
        return point_id(
            str(place["source"]),
            str(place["digest"]),
            start_s=place["start_s"],  # type: ignore[arg-type]  # hypothesis does not say more
            end_s=place["end_s"],  # type: ignore[arg-type]  # as above
            page=place["page"],  # type: ignore[arg-type]  # as above
        )

    assert uuid.UUID(key(one)).version == 5
    assert (key(one) == key(other)) == (one == other)


def test_ids_stay_the_same_for_ever() -> None:
    assert point_id("a.mp4", "00ff", start_s=0, end_s=16) == point_id("a.mp4", "00ff", start_s=0.0, end_s=16.0)
    assert point_id("a.jpg", "00ff") == "279c73a2-772f-5a1d-b01b-023628331b55"


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
TCOTS = st.builds(
    TCot,
    thinking=TEXT,
    rethink=TEXT,
    answer=TEXT,
    keywords=st.lists(TEXT, max_size=3).map(tuple),
    boxes=st.lists(st.builds(Box, *[st.integers(0, 1000)] * 4, st.integers(0, 3)), max_size=3).map(tuple),
    key_frames=st.lists(st.integers(1, 8), max_size=3).map(tuple),
    problems=st.lists(st.builds(Problem, TEXT, TEXT), max_size=2).map(tuple),
    raw=TEXT.filter(bool),
)


@given(tcot=TCOTS)
def test_a_trace_survives_its_payload(tcot: TCot) -> None:
    payload = json.loads(json.dumps(to_payload(Trace(tcot, (), False, 1, 2, "id"))))
    assert tcot_of(payload) == tcot
    evidence = evidence_of(payload)
    assert (evidence.keywords, evidence.boxes) == (tcot.keywords, tcot.boxes)
    assert tuple(frame.frame for frame in evidence.key_frames) == tcot.key_frames


def test_key_frames_carry_their_seconds() -> None:
    refs = (EvidenceRef("frame", 0, None, 5, 2.0), EvidenceRef("frame", 0, None, 2, 0.5))
    payload = to_payload(Trace(TCot(key_frames=(5, 2, 7)), refs, False, 0, 0, "id"))
    assert payload["key_frames"] == [
        {"frame": 5, "time_s": 2.0},
        {"frame": 2, "time_s": 0.5},
        {"frame": 7, "time_s": None},
    ]
    assert payload["raw"].startswith("<thinking>")


def test_no_trace_no_evidence() -> None:
    assert tcot_of(None) is None
    assert evidence_of(None).to_dict() == {"keywords": [], "boxes": [], "key_frames": []}


ANY_TEXT = st.text(st.characters(), max_size=5)  # lone surrogates included


@given(
    st.recursive(
        ANY_TEXT | st.integers() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    )
)
def test_clean_values_can_be_sent(value: object) -> None:
    json.dumps(clean(value), ensure_ascii=False).encode("utf-8")


@given(st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name))
def test_a_source_leads_back_to_its_file(name: bytes) -> None:
    path = os.fsdecode(name)
    assert source_path(display_name(path)) == Path(path)


def test_points_lead_back_to_their_media() -> None:
    assert item_of({"source": "a.mp4", "kind": "video", "start_s": 2.0, "end_s": 4.0}) == Item(
        videos=(Clip(Path("a.mp4"), 2.0, 4.0),)
    )
    assert item_of({"source": "a.pdf", "kind": "page", "page": 3}) == Item(images=(Page(Path("a.pdf"), 3),))
    assert item_of({"source": "a.jpg", "kind": "image"}) == Item(images=(Path("a.jpg"),))
    assert item_of({"source": "a.txt", "kind": "text", "text": "words"}) == Item(text="words")


def test_within_names_every_folder_above() -> None:
    assert within("/a/b.jpg") == ["/a/b.jpg", "/a", "/"]
    assert within("b.jpg") == ["b.jpg"]


SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1, 1), min_size=1)


@given(direct=SCORES, reasoned=SCORES, weight=st.floats(0, 1))
def test_fusion_scores_every_point_and_keeps_the_scale(
    direct: dict[str, float], reasoned: dict[str, float], weight: float
) -> None:
    fused = fuse(direct, reasoned, weight)
    assert fused.keys() == direct.keys()
    for key in direct.keys() & reasoned.keys():
        low, high = sorted((direct[key], reasoned[key]))
        assert low - 1e-9 <= fused[key] <= high + 1e-9
    without = sorted(direct.keys() - reasoned.keys(), key=lambda key: direct[key])
    assert [fused[key] for key in without] == sorted(fused[key] for key in without), "estimates keep the direct order"


def test_a_half_enriched_corpus_is_ranked_as_one() -> None:
    # Reasoned cosines lie 0.4 below direct ones here; "b" has none and must not win by that.
    direct = {"a": 0.9, "b": 0.8, "c": 0.7}
    fused = fuse(direct, {"a": 0.5, "c": 0.3}, 0.5)
    assert sorted(fused, key=lambda key: -fused[key]) == ["a", "b", "c"]
    assert fused["b"] == pytest.approx(0.6)
    assert fuse(direct, {}, 0.5) == pytest.approx(direct)


def test_moments_fold_only_what_overlaps_in_one_file() -> None:
    places = {
        "a": Place("v", 0, 4),
        "b": Place("v", 4, 8),
        "c": Place("w", 0, 4),
        "d": Place("v", 3, 5),
        "e": Place("p"),
    }
    assert group(list("abcde"), places, "moment") == ["a", "b", "c", "e"]
    assert group(list("deabc"), places, "moment") == ["d", "e", "c"]
    assert group(list("abcde"), places, "source") == ["a", "c", "e"]
    assert group(list("edcba"), places, "point") == list("edcba")


def test_diversity_ends_are_the_ranking_and_pure_novelty() -> None:
    random = np.random.default_rng(0)
    vectors = {key: row / np.linalg.norm(row) for key, row in zip("abcdef", random.normal(size=(6, 3)), strict=True)}
    scores = dict(zip("abcdef", (0.9, 0.8, 0.7, 0.6, 0.5, 0.4), strict=True))
    assert diversify(list("abcdef"), scores, vectors, diversity=0.0, limit=4) == list("abcd")
    first, second = diversify(list("abcdef"), scores, vectors, diversity=1.0, limit=2)
    assert first == "a"
    assert second == min("bcdef", key=lambda key: vectors[key] @ vectors["a"])
    assert sorted(diversify(list("abcdef"), scores, vectors, diversity=0.7, limit=99)) == list("abcdef")
    assert diversify([], {}, {}, diversity=0.5, limit=3) == []
    with pytest.raises(InputError, match="between 0 and 1"):
        diversify(["a"], scores, vectors, diversity=1.5, limit=1)


@given(attempts=st.integers(1, 8), busy=st.integers(0, 10), jitter=st.floats(0, 1, exclude_max=True))
def test_retries_are_bounded_and_grow(attempts: int, busy: int, jitter: float) -> None:
    naps: list[float] = []
    calls: list[int] = []

    def request() -> str:
        calls.append(1)
        if len(calls) <= busy:
            raise BusyError("busy")
        return "done"

    retry = Retry(attempts=attempts, first_s=1.0, longest_s=10.0, sleep=naps.append, uniform=lambda: jitter)
    if busy < attempts:
        assert retry.call(request) == "done"
    else:
        with pytest.raises(StoreError, match=rf"\({attempts} attempts\)"):
            retry.call(request)
    assert len(calls) == min(busy + 1, attempts)
    assert len(naps) == len(calls) - 1
    assert naps == sorted(naps)
    assert all(0.5 * min(10.0, 2.0**n) <= nap <= min(10.0, 2.0**n) for n, nap in enumerate(naps))


def test_another_error_is_not_retried() -> None:
    def request() -> str:
        raise StoreError("wrong")

    with pytest.raises(StoreError, match=r"^wrong$"):
        Retry(sleep=lambda _: pytest.fail("slept")).call(request)
    with pytest.raises(InputError):
        Retry(attempts=0)


@pytest.mark.parametrize("address", ["localhost:6333", "vectors.example.org:6333", "[::1]:6333", "10.0.0.1:6334/x"])
def test_a_server_without_its_protocol_is_no_folder(address: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="looks like a server"):
        open_store(address, "films")
    assert open_store(f"./{address}", "films").location == address
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["http://[::1", "https://", "http://host:none", "http://host:99999"])
def test_a_broken_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="names no server"):
        open_store(address, "films")


@pytest.mark.parametrize(
    "wrong",
    [{"kinds": ("picture",)}, {"reasoning": ("yes",)}, {"pages": ("2",)}, {"pages": 2}, {"under": Path("photos")}],
)
def test_a_filter_that_no_point_can_match_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a filter's"):
        Filter(**wrong)


def test_folders_of_a_filter_count_from_the_root_too() -> None:
    typed = Filter(under=("photos/", Path("photos"), Path("/data/./a/"), "s3://shelf/a/"))
    assert typed.from_here().under == ("photos", str(Path("photos").absolute()), "/data/a", "s3://shelf/a/")
    folders = {"key": "within", "match": {"any": ["photos", "photos", "/data/a", "s3://shelf/a"]}}
    assert as_qdrant_filter(typed, None, "films") == {"must": [folders]}
    assert SearchParams(where=typed).where == typed.from_here()
