from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_retrieval import InputError
from ume_training.data.mixture import Batch, Mixture
from ume_training.data.sources import LoadedPair


class Source:
    """A data set of groups of given sizes; nothing in it is ever loaded."""

    def __init__(self, name: str, sizes: list[int]) -> None:
        self.name = name
        # Members of a group do not stand next to each other.
        self._groups = [g for turn in range(max(sizes, default=0)) for g, size in enumerate(sizes) if turn < size]

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> LoadedPair:
        raise AssertionError("an order of batches loads no pair")

    def group(self, index: int) -> str:
        return str(self._groups[index])

    def also_answers(self, query: int, positive: int) -> bool:
        return query == positive


def batches(
    sources: Sequence[Source], weights: dict[str, float] | None, size: int, seed: int, steps: int, *, start: int = 0
) -> Iterator[Batch]:
    return Mixture(sources, weights, size, seed).batches(steps, start)


SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=30)


@given(SIZES, st.integers(1, 12), st.integers(0, 99))
def test_a_pass_has_every_pair_once_and_groups_whole(sizes: list[int], size: int, seed: int) -> None:
    source = Source("a", sizes)
    seen = Counter[int]()
    for batch in batches([source], None, size, seed, steps=len(source) + 2):
        positions = batch.positions
        assert 0 < len(positions) <= size
        assert len(set(positions)) == len(positions)
        for group in {source.group(position) for position in positions}:
            members = {i for i in range(len(source)) if source.group(i) == group}
            assert len(members) > size or members <= set(positions)
        groups = [source.group(position) for position in positions]
        assert sum(one != other for one, other in pairwise(groups)) == len(set(groups)) - 1
        if sum(seen.values()) < len(source):
            fresh = [position for position in positions if not seen[position]]
            repeated = len(positions) - len(fresh)
            seen.update(positions)
            assert not repeated or set(seen) == set(range(len(source))), "a pair came again before all had come"
    assert set(seen) == set(range(len(source)))


@given(st.lists(SIZES, min_size=1, max_size=3), st.integers(1, 8), st.integers(0, 9), st.integers(0, 25))
def test_a_batch_depends_on_seed_and_number_alone(groups: list[list[int]], size: int, seed: int, start: int) -> None:
    sources = [Source(str(number), sizes) for number, sizes in enumerate(groups)]
    whole = list(batches(sources, None, size, seed, steps=30))
    assert list(batches(sources, None, size, seed, steps=30 - start, start=start)) == whole[start:]
    assert list(batches(sources[::-1], None, size, seed, steps=30)) != [] == list(batches(sources, None, size, seed, 0))


def test_full_batches_where_groups_allow_it() -> None:
    for sizes in ([4] * 10, [4] * 11, [1] * 13):
        order = batches([Source("a", sizes)], None, 8, 0, steps=60)
        assert {len(batch.positions) for batch in order} == {8}


def test_another_seed_and_another_pass_are_another_order() -> None:
    source = Source("a", [1] * 64)
    first, second = (list(batches([source], None, 64, seed, steps=2)) for seed in (0, 1))
    assert first[0] != first[1]
    assert first[0] != second[0]


def test_weights_decide_how_often_a_data_set_comes() -> None:
    sources = [Source(name, [1] * 50) for name in ("a", "b", "c")]
    drawn = Counter(batch.dataset for batch in batches(sources, {"a": 3.0, "b": 1.0}, 5, 0, steps=2000))
    assert drawn["c"] == 0
    assert 0.7 < drawn["a"] / 2000 < 0.8
    by_size = Counter(
        batch.dataset for batch in batches([Source("x", [1] * 90), Source("y", [1] * 10)], None, 5, 0, 2000)
    )
    assert 0.87 < by_size["x"] / 2000 < 0.93


def test_a_large_group_is_cut_and_an_empty_data_set_never_drawn() -> None:
    order = list(batches([Source("a", [10]), Source("void", [])], None, 4, 0, steps=3))
    assert sorted(position for batch in order for position in batch.positions)[:1] == [0]
    assert {position for batch in order for position in batch.positions} == set(range(10))
    assert {batch.dataset for batch in order} == {"a"}


@pytest.mark.parametrize(
    ("weights", "size", "hint"),
    [
        ({"a": -1.0}, 4, "weights"),
        ({"a": float("nan")}, 4, "weights"),
        ({"nobody": 1.0}, 4, "nobody"),
        ({"a": 0.0}, 4, "no data set"),
        (None, 0, "batch of 0"),
    ],
)
def test_wrong_mixtures_are_refused(weights: dict[str, float] | None, size: int, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        Mixture([Source("a", [1])], weights, size, 0)


def test_names_must_differ() -> None:
    with pytest.raises(InputError, match="same name"):
        Mixture([Source("a", [1]), Source("a", [1])], None, 4, 0)


def test_an_order_without_end_goes_on() -> None:
    order = Mixture([Source("a", [1, 1])], None, 2, 0).batches()
    assert [sorted(next(order).positions) for _ in range(5)] == [[0, 1]] * 5
    assert isinstance(next(order), Batch)
