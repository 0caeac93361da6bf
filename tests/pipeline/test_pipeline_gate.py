"""The gate spares what it may and no more, survives a round trip, and refuses what it does not know."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_retrieval import InputError
from ume_retrieval.gate import DirectView, Gate, calibrate


def view(margin: float, vector: tuple[float, ...] = (0.0, 0.0)) -> DirectView:
    return DirectView(np.asarray(vector, np.float32), (("a", 0.9), ("b", 0.9 - margin)), (("a", 0.8), ("b", 0.5)))


def world(seed: int, count: int = 400) -> tuple[list[DirectView], list[bool]]:
    """Queries whose direct search fails more often the smaller its margin is, and always where the vector says so."""
    rng = np.random.default_rng(seed)
    views, spare = [], []
    for _ in range(count):
        margin, hard = float(rng.uniform(0, 0.5)), bool(rng.random() < 0.3)
        views.append(view(margin, (float(hard), float(rng.normal()))))
        spare.append(not hard and bool(rng.random() < 0.4 + 2 * margin))
    return views, spare


def test_it_spares_queries_it_never_saw_and_keeps_its_promise() -> None:
    views, spare = world(1)
    gate = calibrate(views, spare, embedder="e@1", max_loss=0.02)
    assert gate.saved > 0.2
    assert gate.loss <= 0.02
    fresh, right = world(2, 2000)
    spared = [not gate.needs_reasoning(one) for one in fresh]
    wrong = sum(passed and not good for passed, good in zip(spared, right, strict=True))
    assert sum(spared) / len(fresh) == pytest.approx(gate.saved, abs=0.1)
    assert wrong / len(fresh) < 0.05


def test_labels_of_chance_spare_next_to_nothing() -> None:
    views, _ = world(3)
    rng = np.random.default_rng(0)
    gate = calibrate(views, [bool(rng.random() < 0.5) for _ in views], embedder="e@1", max_loss=0.005)
    assert gate.saved < 0.05


@pytest.mark.parametrize(("label", "saved"), [(True, 1.0), (False, 0.0)])
def test_one_kind_of_label_decides_for_all(label: bool, saved: float) -> None:
    views, _ = world(4, 60)
    gate = calibrate(views, [label] * 60, embedder="e@1", max_loss=0.0)
    assert gate.saved == saved
    assert {gate.needs_reasoning(one) for one in views} == {not label}


@given(st.lists(st.booleans(), min_size=50, max_size=80), st.floats(0, 0.3))
def test_mistakes_on_the_calibration_queries_stay_within_the_bound(spare: list[bool], bound: float) -> None:
    views, _ = world(5, len(spare))
    gate = calibrate(views, spare, embedder="e@1", max_loss=bound)
    assert 0 <= gate.loss <= bound
    assert gate.queries == len(spare)


def test_a_round_trip_changes_nothing(tmp_path: Path) -> None:
    views, spare = world(6)
    gate = calibrate(views, spare, embedder="e@1")
    gate.save(tmp_path / "gate.json")
    json.loads((tmp_path / "gate.json").read_text(), parse_constant=pytest.fail)
    assert Gate.load(tmp_path / "gate.json") == gate
    gate.save(str(tmp_path / "new" / "gate.json"))
    assert Gate.load(str(tmp_path / "new" / "gate.json")) == gate


def test_what_is_no_gate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    for text in (
        "",
        "[]",
        "{}",
        '{"weights": ["x"]}',
        '{"weights": [NaN], "bias": 0, "threshold": 0, "embedder": "e"}',
    ):
        path.write_text(text)
        with pytest.raises(InputError, match="holds no gate"):
            Gate.load(path)
    with pytest.raises(InputError, match="holds no gate"):
        Gate.load(tmp_path / "missing.json")
    views, spare = world(7)
    with pytest.raises(InputError, match="nothing can be calibrated"):
        calibrate(views[:49], spare[:49], embedder="e@1")
    gate = calibrate(views, spare, embedder="e@1")
    with pytest.raises(InputError, match="calibrated with e@1"):
        gate.check("other@2")
    with pytest.raises(InputError, match="reads 9 numbers"):
        gate.needs_reasoning(view(0.1, (0.0, 0.0, 0.0)))


def test_a_query_without_any_hit_is_a_view_too() -> None:
    assert np.isfinite(DirectView(np.zeros(2, np.float32), ()).features()).all()
