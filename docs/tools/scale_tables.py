# ruff: noqa: INP001  # a script
"""Writes the tables of `docs/scale.md` anew from `ume_ray.capacity` and from benchmarks/results.

`python docs/tools/scale_tables.py` does it; a test compares the page with what the module says. A table stands between
`<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ume_ray.capacity import (
    BITS,
    HOUR,
    CapacityPlan,
    Costs,
    Keeping,
    Quantized,
    rows,
    short,
)
from ume_ray.capacity_numbers import ASSUMED, CPU, GPU, GPUS, MEASURED

PAGE = Path(__file__).parents[1] / "scale.md"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SIZES = (1e6, 1e8, 1e9)
DEADLINE_H = 72.0
PEAK = 3.0
"""Load of the busiest hour over the mean load."""

TOLERATED = 0.15
"""What Ray may cost on top of one process."""

BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def result(name: str) -> Any:
    """What a benchmark has measured."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def unit_costs() -> list[list[str]]:
    """One item, by stage."""

    def cells(costs: Costs) -> dict[str, str]:
        return {
            "decode, ms of a core": short(1000 * costs.decode_core_s),
            "reason, tokens": short(costs.reason_tokens),
            "tokens a second of one Reasoner": short(costs.reason_tokens_per_s),
            "reason, ms of one Reasoner": short(1000 * costs.reason_s),
            "embed, ms a pass": short(1000 * costs.embed_s),
            "write, ms of a core": short(1000 * costs.write_core_s),
            "values of a vector": f"{costs.dimension:,}",
            "bytes of a point's fields": short(costs.payload_bytes),
        }

    measured, assumed = cells(MEASURED), cells(ASSUMED)
    head = ["one item", "ume-tiny on one CPU core, **measured**", "a 2B pair on one GPU, **assumed**"]
    return [head, *([name, measured[name], assumed[name]] for name in measured)]


def corpus(costs: Costs, hardware: Any) -> list[list[str]]:
    """A corpus of each size, on as many machines as finish within the deadline."""
    plans = [CapacityPlan(size, costs, hardware) for size in SIZES]
    plans = [replace(plan, machines=plan.machines_within(DEADLINE_H)) for plan in plans]
    return [["items", *(f"{plan.items:,.0f}" for plan in plans)], *rows(plans)]


def quantizations() -> list[list[str]]:
    """What a point takes, and what a node of the default size holds."""
    table = [
        [
            "quantization",
            "bytes a point in RAM",
            "bytes a point on disk",
            "points that one node's RAM holds",
            "nodes for 10^8",
            "nodes for 10^9",
        ]
    ]
    names: Sequence[Quantized] = tuple(BITS)
    for name in names:
        keeping = Keeping(quantization=name)
        one = CapacityPlan(1, ASSUMED, GPU, replace(keeping, replicas=1))
        nodes = [str(CapacityPlan(size, ASSUMED, GPU, keeping).nodes) for size in (1e8, 1e9)]
        holds = keeping.node_ram_gb * 1e9 / one.ram_bytes
        table.append([name, f"{one.ram_bytes:,.0f}", f"{one.disk_bytes:,.0f}", short(holds), *nodes])
    return table


def budget() -> list[list[str]]:
    """What `ume enrich --budget` leaves out, and what it costs in hits."""
    found = result("corpus_budget")
    table = [
        ["share reasoned over", "hit@1, crowded first", "hit@1, by chance", "GPU-hours for 10^8", "money", "RAM, GB"]
    ]
    for share, crowded, chance in zip(
        found["shares"], found["hit@1"]["crowded"], found["hit@1"]["chance"], strict=True
    ):
        if round(10 * share) % 2:
            continue
        plan = CapacityPlan(1e8, ASSUMED, GPU, reasoned=share)
        models = (plan.seconds["reason"] + plan.seconds["embed"]) / HOUR
        table.append(
            [
                f"{share:.0%}",
                f"{crowded:.3f}",
                f"{chance:.3f}",
                short(models),
                short(plan.money),
                short(plan.ram_bytes / 1e9),
            ]
        )
    return table


def reasoners(tokens_a_day: float) -> int:
    """Return how many Reasoners keep up with queries when the busiest hour has `PEAK` times the mean load."""
    return math.ceil(round(PEAK * tokens_a_day / ASSUMED.reason_tokens_per_s / (24 * HOUR), 6))


def gate() -> list[list[str]]:
    """Reasoners that queries keep busy."""
    found = result("gate")
    table = [["queries a day", "Reasoners, always", "Reasoners, with the gate", "tokens a day that it spares"]]
    for per_day in (1e5, 1e6, 1e7, 1e8):
        always = per_day * ASSUMED.reason_tokens
        spared = always * found["tokens_saved"]
        table.append([f"{per_day:,.0f}", *map(str, map(reasoners, (always, always - spared))), short(spared)])
    return table


def gate_quality() -> list[list[str]]:
    """What the gate cost in hits where it was measured."""
    found = result("gate")
    table = [["queries reasoned over", "hit@1", "tokens"]]
    return [
        *table,
        *(
            [name, f"{found[name]['hit@1']:.3f}", f"{found[name]['tokens']:.0%}"]
            for name in ("never", "gate", "always")
        ),
    ]


def ray() -> list[list[str]]:
    """Ray against one process, without reasoning and, where that was measured, with it."""
    names = {"ray_index": "direct", "ray_index_reasoned": "reasoned"}
    measured = {name: kind for name, kind in names.items() if (RESULTS / f"{name}.json").exists()}
    runs = [result(name) for name in measured]

    def row(name: str, show: Callable[[dict[str, Any]], str]) -> list[str]:
        return [name, *(show(run) for run in runs)]

    def added(run: dict[str, Any]) -> float:
        return float(run["cpu_ms_per_item"]["ray"] - run["cpu_ms_per_item"]["alone"])

    def least(run: dict[str, Any]) -> str:
        return f"{added(run) / TOLERATED:.0f}" if added(run) > 0 else "any"

    def overhead(run: dict[str, Any]) -> str:
        share = run["overhead"]
        return f"{share:.0%}" if share <= TOLERATED else f"{share:.0%}: **missed**"

    def same(run: dict[str, Any]) -> str:
        found = run["same_points"]["dying"]
        return f"{found['lost']}, {found['doubled']}, {found['payloads']}"

    return [
        [f"{runs[0]['items']:,} items, one model of a kind", *measured.values()],
        row("processor ms an item, one process", lambda run: f"{run['cpu_ms_per_item']['alone']:.2f}"),
        row("processor ms an item, Ray", lambda run: f"{run['cpu_ms_per_item']['ray']:.2f}"),
        row("processor ms an item that Ray adds", lambda run: f"{added(run):.2f}"),
        row("from what an item must cost, in ms, for that to be 15 %", least),
        row("overhead an item, processor time (target 15 %)", overhead),
        row("overhead an item, wall-clock time", lambda run: f"{run['overhead_wall']:.0%}"),
        row("overhead of the whole run, with workers started", lambda run: f"{run['overhead_with_start']:.0%}"),
        row("more, when workers die", lambda run: f"{run['overhead_with_deaths']:.0%}"),
        row("Embedders, readers that died", lambda run: f"{run['deaths']['embedders']}, {run['deaths']['readers']}"),
        row("points lost, doubled, with another payload", same),
        row(
            "lowest cosine of a vector to that of one process",
            lambda run: f"{run['same_points']['dying']['cosine_min']:.7f}",
        ),
    ]


TABLES: Mapping[str, Callable[[], list[list[str]]]] = {
    "unit-costs": unit_costs,
    "gpus": lambda: corpus(ASSUMED, GPUS),
    "gpu": lambda: corpus(ASSUMED, GPU),
    "tiny": lambda: corpus(MEASURED, CPU),
    "quantizations": quantizations,
    "budget": budget,
    "gate": gate,
    "gate-quality": gate_quality,
    "ray": ray,
}


def written(page: str) -> str:
    """The page with every table made anew."""
    return BLOCK.sub(lambda block: f"{block[1]}{_markdown(TABLES[block[2]]())}\n{block[3]}", page)


def _markdown(table: list[list[str]]) -> str:
    head, *body = table
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" + "--:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
