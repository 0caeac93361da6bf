"""Steps are made of whole pairs of one data set, both sides, each G times, whatever the number of processes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_training.egrl.sampler import PairRows, RolloutOrder, plan_steps, spread_rows


@dataclass
class Plain:
    """A data set without content: all that the sampler looks at."""

    name: str
    count: int
    group_size: int = 1

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        raise AssertionError("the sampler loads nothing")

    def group(self, index):
        return str(index // self.group_size)

    def also_answers(self, query, positive):
        return (query + positive) % 2 == 0


sources = st.lists(st.builds(Plain, st.just("d"), st.integers(0, 23), st.integers(1, 5)), min_size=1, max_size=4)


@given(sources, st.integers(1, 6), st.integers(0, 99))
def test_a_step_is_of_one_data_set_and_no_pair_comes_twice(data, pairs, seed):
    steps = plan_steps(data, pairs, seed)
    rows = PairRows(tuple(data))
    seen = [pair for step in steps for pair in step]
    assert len(seen) == len(set(seen))
    assert len(steps) == sum(len(source) // pairs for source in data)
    for step in steps:
        assert len(step) == pairs
        assert len({id(rows.locate(2 * pair)[0]) for pair in step}) == 1


def test_look_alikes_come_together():
    data = [Plain("d", 40, group_size=4)]
    for step in plan_steps(data, 8, seed=3):
        groups = [pair // 4 for pair in step]
        assert sorted(groups) == sorted(2 * [*set(groups)] * 2)


def test_another_epoch_has_another_order_and_the_same_seed_the_same():
    order = RolloutOrder([Plain("d", 60)], pairs=4, rollouts=2, reads=1, seed=1)
    first = list(order)
    assert first == list(order)
    order.set_epoch(1)
    assert first != list(order)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_step_holds_both_sides_g_times_and_is_read_as_often_as_asked(processes):
    pairs, rollouts, reads = 4, 3, 2
    order = RolloutOrder([Plain("d", 12)], pairs=pairs, rollouts=rollouts, reads=reads, seed=0)
    rows = list(order)
    size = 2 * pairs * rollouts
    assert len(rows) == len(order) == 3 * size * reads
    for start in range(0, len(rows), size):
        step = rows[start : start + size]
        assert step == rows[start // (size * reads) * size * reads :][:size]
        groups = [step[i : i + rollouts] for i in range(0, size, rollouts)]
        assert all(len(set(group)) == 1 for group in groups)
        assert all(q[0] + 1 == p[0] and q[0] % 2 == 0 for q, p in zip(groups[::2], groups[1::2], strict=True))
        share = size // processes  # each process gets a run of rows, as TRL deals them out
        assert all(step[i] == step[i + 1] for i in range(0, share - 1, rollouts))


def test_rows_find_their_pair_through_all_data_sets():
    a, b = Plain("a", 3), Plain("b", 2)
    rows = PairRows((a, b))
    assert len(rows) == 10
    assert rows.locate(5) == (a, 2)
    assert rows.locate(6) == (b, 0)
    assert rows.also_answers(0, 2)
    assert not rows.also_answers(0, 3), "pairs of different data sets never answer each other"
    with pytest.raises(IndexError):
        rows.locate(10)


def test_what_does_not_fill_a_step_waits_for_another_shuffle():
    left = {frozenset(range(7)) - {p for s in plan_steps([Plain("d", 7)], 2, seed) for p in s} for seed in range(30)}
    assert len(left) > 3
    assert all(len(rest) == 1 for rest in left)


@given(st.integers(1, 300), st.integers(1, 64))
def test_rows_that_are_looked_at_are_of_both_sides_and_spread(pairs, asked):
    count = min(asked, 2 * pairs)
    rows = spread_rows(pairs, count)
    assert len(set(rows)) == count
    assert sum(row % 2 for row in rows) == count // 2
    places = [row // 2 for row in rows]
    assert 0 <= places[0] <= places[-1] < pairs
    assert all(0 <= after - before <= pairs / count + 1 for before, after in pairwise(places))
