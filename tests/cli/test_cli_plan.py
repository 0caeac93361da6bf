"""`ume plan`, its formulas, and the page whose tables they make."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from ume_cli.app import app
from ume_ray.capacity import (
    CapacityPlan,
    Costs,
    Hardware,
    Keeping,
    rows,
    short,
    with_numbers,
)
from ume_ray.capacity_numbers import ASSUMED, CPU, GPU, MEASURED
from ume_retrieval import InputError

ROOT = Path(__file__).parents[2]
UNIT = Costs(1.0, 2.0, 10, 5, 3.0, 8, 100, "gpu", "test")
RENTED = Hardware("two GPUs", "gpu", 2, 4, 10.0, "test")
KEPT = Keeping("scalar", False, 16, 1.0, 2, 1e-5, 1e-3, 0.5, 1000)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def tables() -> Any:
    spec = importlib.util.spec_from_file_location("scale_tables", ROOT / "docs" / "tools" / "scale_tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_plan_by_hand() -> None:
    """100 items, half reasoned over: each figure worked out on paper."""
    plan = CapacityPlan(100, UNIT, RENTED, KEPT, machines=2, reasoned=0.5, efficiency=0.5)
    assert plan.seconds == {"decode": 100.0, "reason": 100.0, "embed": 450.0, "write": 200.0}
    assert plan.machine_hours == {"models": 550 / 2 / 3600 / 0.5, "cores": 300 / 4 / 3600 / 0.5}
    assert plan.slowest == "models"
    assert plan.hours == 550 / 3600 / 2
    assert plan.money == pytest.approx(550 / 3600 * 10)
    assert (plan.vectors, plan.full_bytes, plan.compact_bytes, plan.graph_bytes) == (150, 4800, 1200, 19200)
    assert plan.ram_bytes == 2 * (1200 + 19200)
    assert plan.disk_bytes == 2 * (2 * 4800 + 1200 + 19200 + 10_000)
    assert plan.nodes == math.ceil(40800 / 1e4)
    assert plan.shards == 3  # three nodes hold one copy
    assert plan.serving_money_per_month == 5 * 0.5 * 720
    assert plan.tokens_saved(0.2) == pytest.approx(100 * 0.3 * 10)


def test_without_quantization_full_vectors_are_in_memory() -> None:
    plain = CapacityPlan(100, UNIT, RENTED, replace(KEPT, quantization="none"))
    assert plain.compact_bytes == 0
    assert plain.ram_bytes == 2 * (plain.full_bytes + plain.graph_bytes)
    both = CapacityPlan(100, UNIT, RENTED, replace(KEPT, full_in_memory=True))
    assert both.ram_bytes == 2 * (both.full_bytes + both.compact_bytes + both.graph_bytes)


@given(
    items=st.floats(1, 1e12),
    machines=st.integers(1, 10_000),
    reasoned=st.floats(0, 1),
    deadline=st.floats(0.1, 1e4),
)
def test_more_work_never_costs_less(items: float, machines: int, reasoned: float, deadline: float) -> None:
    plan = CapacityPlan(items, ASSUMED, GPU, machines=machines, reasoned=reasoned)
    larger = replace(plan, items=items * 2)
    for name in ("hours", "money", "ram_bytes", "disk_bytes", "nodes", "shards"):
        assert getattr(larger, name) >= getattr(plan, name)
    assert plan.money == pytest.approx(replace(plan, machines=1).money)
    needed = plan.machines_within(deadline)
    assert replace(plan, machines=needed).hours <= deadline * (1 + 1e-9)
    assume(needed > 1)
    assert replace(plan, machines=needed - 1).hours > deadline * (1 - 1e-9)
    assert plan.shards % math.ceil(plan.nodes / plan.keeping.replicas) == 0
    assert plan.items / plan.shards <= plan.keeping.points_a_shard


@pytest.mark.parametrize(
    "broken",
    [
        {"items": 0},
        {"items": math.inf},
        {"items": math.nan},
        {"machines": "1e400"},
        {"machines": 0},
        {"reasoned": 1.5},
        {"efficiency": 0},
        {"price_per_hour": -1},
        {"embed_s": 0},
        {"node_ram_gb": math.inf},
        {"quantization": "ternary"},
        {"dimension": "many"},
        {"nosuch": 1},
        {"costs": 1},
    ],
)
def test_a_number_that_cannot_be_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        with_numbers(CapacityPlan(1e6, ASSUMED, GPU), broken)


def test_costs_of_a_core_say_nothing_of_a_gpu() -> None:
    with pytest.raises(InputError, match="core"):
        CapacityPlan(1e6, MEASURED, GPU)
    assert CapacityPlan(1e6, MEASURED, CPU).hours > 0


def test_own_numbers_reach_the_part_that_they_belong_to() -> None:
    plan = with_numbers(
        CapacityPlan(1e6, ASSUMED, GPU),
        {"embed_s": "0.01", "price_per_hour": 3, "replicas": "3", "reasoned": 0.5, "full_in_memory": "true"},
    )
    assert (plan.costs.embed_s, plan.hardware.price_per_hour, plan.keeping.replicas) == (0.01, 3.0, 3)
    assert (plan.reasoned, plan.keeping.full_in_memory) == (0.5, True)


def test_the_command_prints_what_the_module_says() -> None:
    result = run("--items", "5e7", "--set", "price_per_hour=1.9", "--set", "reasoned=0.25", "--json")
    assert result.exit_code == 0, result.output
    [found] = json.loads(result.stdout)["plans"]
    expected = with_numbers(CapacityPlan(5e7, ASSUMED, GPU), {"price_per_hour": 1.9, "reasoned": 0.25})
    assert found == expected.to_dict()


def test_a_deadline_takes_as_many_machines_as_it_needs() -> None:
    result = run("--items", "1e8", "--hardware", "gpus", "--hours", "24", "--json")
    [found] = json.loads(result.stdout)["plans"]
    assert found["hours"] <= 24
    assert found["machines"] > 1


def test_a_table_for_people_names_every_row() -> None:
    result = run("--costs", "measured")
    assert result.exit_code == 0
    for name, *_ in rows([CapacityPlan(1e6, MEASURED, CPU)]):
        assert name in result.output
    assert "1,000,000,000" in result.output


def test_numbers_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "numbers.yaml"
    file.write_text("dimension: 1024\nquantization: binary\n", encoding="utf-8")
    [found] = json.loads(run("--items", "1e6", "--numbers", file, "--json").stdout)["plans"]
    expected = with_numbers(CapacityPlan(1e6, ASSUMED, GPU), {"dimension": 1024, "quantization": "binary"})
    assert found == expected.to_dict()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "price_per_hour"], "name=value"),
        (["--set", "prise=1"], "unknown number"),
        (["--hours", "0"], "above 0"),
        (["--hours", "nan"], "above 0"),
        (["--hours", "1e-320"], "beyond all numbers"),
        (["--items", "0"], "0 items"),
        (["--items", "inf"], "inf items"),
        (["--items", "nan"], "nan items"),
        (["--items", "1e300", "--set", "dimension=1e100"], "beyond all numbers"),
        (["--set", "machines=1e400"], "machines is"),
        (["--costs", "measured", "--hardware", "gpu"], "core"),
        (["--numbers", "/nosuch/file.yaml"], "cannot be read"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], said: str) -> None:
    result = run(*arguments, "--json")
    assert result.exit_code == 1
    refused = json.loads(result.stdout)
    assert said in refused["message"] + refused["hint"]


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_a_file_that_holds_no_numbers(tmp_path: Path, text: str) -> None:
    file = tmp_path / "numbers.yaml"
    file.write_text(text, encoding="utf-8")
    assert run("--numbers", file).exit_code == 1


@given(st.floats(1e-6, 1e15))
def test_two_digits_stay(number: float) -> None:
    assert float(short(number).replace(",", "")) == pytest.approx(number, rel=0.051)


def test_the_measured_costs_are_those_of_the_benchmarks() -> None:
    results = ROOT / "benchmarks" / "results"
    units = json.loads((results / "ray_index.json").read_text(encoding="utf-8"))["units"]
    pipeline = json.loads((results / "pipeline.json").read_text(encoding="utf-8"))
    assert pytest.approx(units["decode_ms"] / 1000, rel=0.01) == MEASURED.decode_core_s
    assert pytest.approx(units["embed_ms"] / 1000, rel=0.01) == MEASURED.embed_s
    assert pytest.approx(units["write_ms"] / 1000, rel=0.01) == MEASURED.write_core_s
    assert pytest.approx(units["payload_bytes"], rel=0.01) == MEASURED.payload_bytes
    assert pytest.approx(pipeline["completion_tokens"] / pipeline["items"], rel=0.01) == MEASURED.reason_tokens
    assert pytest.approx(pipeline["tokens_per_s"]["ume"], rel=0.01) == MEASURED.reason_tokens_per_s


def test_every_table_of_the_page_is_what_the_module_makes() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    made = tables()
    assert made.written(page) == page, "run `python docs/tools/scale_tables.py`"
    assert {name for _, name, _ in made.BLOCK.findall(page)} == made.TABLES.keys()
