"""Estimate the cost of decoding, reasoning over, embedding, writing and storing a corpus.

All figures come from the caller; `capacity_numbers` has defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, TypeAlias

from ume_retrieval.errors import InputError

Quantized: TypeAlias = Literal["none", "scalar", "binary", "product"]
"""Quantization of the vectors that a search scans first; see `ume_qdrant.Layout`."""

BITS: Final[Mapping[Quantized, float]] = {"none": 32.0, "scalar": 8.0, "binary": 1.0, "product": 2.0}
"""Bits per value; `product` compresses 16 times."""

HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Cost of one item, in seconds of one core or one model, and size of its point.

    Attributes:
        decode_core_s: Listing, reading and decoding on a CPU core.
        write_core_s: Building and writing its point.
        reason_tokens: Tokens that the Reasoner writes.
        reason_tokens_per_s: Tokens a second of one Reasoner with full batches.
        embed_s: One pass of the Embedder; a point with reasoning needs a second one.
        dimension: Values of a vector.
        payload_bytes: Bytes of a point's fields, including the trace.
        on: Device of a model, a "core" or a "gpu".
        source: Source of the numbers.
    """

    decode_core_s: float
    write_core_s: float
    reason_tokens: float
    reason_tokens_per_s: float
    embed_s: float
    dimension: int
    payload_bytes: float
    on: Literal["core", "gpu"]
    source: str

    @property
    def reason_s(self) -> float:
        """Seconds of one Reasoner per item."""
        return self.reason_tokens / self.reason_tokens_per_s


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine for indexing.

    Attributes:
        name: Name in tables.
        on: Device of its models, a "core" or a "gpu".
        workers: Models that it runs at full speed: its GPUs, or its cores.
        cores: CPU cores left for decoding and writing.
        price_per_hour: Price, in the currency of the plan.
        source: Source of the numbers.
    """

    name: str
    on: Literal["core", "gpu"]
    workers: float
    cores: float
    price_per_hour: float
    source: str


@dataclass(frozen=True, slots=True)
class Keeping:
    """Storage of the points.

    Attributes:
        quantization: Quantization of the vectors that a search scans first; quantized vectors are in RAM.
        full_in_memory: Whether full vectors are in RAM too.
        links: Neighbours of a point in the HNSW graph (Qdrant's `m`); its lowest layer has twice as many, 4 bytes each.
        overhead: Factor on RAM for ids, payload indexes and segments being rebuilt.
        replicas: Copies of every shard.
        node_ram_gb: RAM of a node, in 10^9 bytes.
        node_disk_gb: Disk of a node, in 10^9 bytes.
        node_price_per_hour: Price of a node.
        points_a_shard: Most points of a shard, so that it can be rebuilt within hours.
    """

    quantization: Quantized = "scalar"
    full_in_memory: bool = False
    links: int = 16
    overhead: float = 1.3
    replicas: int = 2
    node_ram_gb: float = 128.0
    node_disk_gb: float = 4000.0
    node_price_per_hour: float = 1.0
    points_a_shard: float = 20e6


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """A corpus with the machines that index it and the nodes that serve it.

    Attributes:
        items: Number of points: images, video segments, pages, texts.
        costs: Cost of one item.
        hardware: Machine for indexing.
        keeping: Storage of the points.
        machines: Number of machines that index in parallel.
        reasoned: Share of the items with reasoning, which have two vectors, 0..1.
        efficiency: Share of the machines' time that is useful work, 0..1; the rest is waiting, starting and repeating.

    Raises:
        InputError: When a number is out of range.

    Example:
        >>> from ume_ray.capacity_numbers import ASSUMED, GPU
        >>> plan = CapacityPlan(1e6, ASSUMED, GPU, machines=2)
        >>> round(plan.hours, 1), plan.slowest
        (13.6, 'models')
    """

    items: float
    costs: Costs
    hardware: Hardware
    keeping: Keeping = Keeping()
    machines: int = 1
    reasoned: float = 1.0
    efficiency: float = 0.7

    def __post_init__(self) -> None:
        shares_fit = 0 <= self.reasoned <= 1 and 0 < self.efficiency <= 1
        if not (1 <= self.items < math.inf and self.machines >= 1 and shares_fit):
            raise InputError(
                f"{self.items:g} items, {self.machines} machines, shares {self.reasoned} and {self.efficiency}",
                hint="use at least 1 item and machine, and shares from 0 to 1",
            )
        if self.costs.on != self.hardware.on:
            raise InputError(
                f"costs of a model on a {self.costs.on} do not apply to {self.hardware.name}",
                hint="choose hardware of that kind, or costs that were measured on this one",
            )
        for part in (self.costs, self.hardware, self.keeping):
            for one in fields(part):
                value = getattr(part, one.name)
                if isinstance(value, (int, float)) and not isinstance(value, bool) and not 0 < value < math.inf:
                    raise InputError(f"{one.name} is {value}", hint="use a number above 0")

    @property
    def seconds(self) -> dict[str, float]:
        """Total work by stage, in seconds of one core (decode, write) or of one model (reason, embed)."""
        return {
            "decode": self.items * self.costs.decode_core_s,
            "reason": self.items * self.reasoned * self.costs.reason_s,
            "embed": self.items * (1 + self.reasoned) * self.costs.embed_s,
            "write": self.items * self.costs.write_core_s,
        }

    @property
    def machine_hours(self) -> dict[str, float]:
        """Hours that the models and the cores of one machine are busy; the longer one decides."""
        work = self.seconds
        models = (work["reason"] + work["embed"]) / self.hardware.workers
        cores = (work["decode"] + work["write"]) / self.hardware.cores
        return {"models": models / HOUR / self.efficiency, "cores": cores / HOUR / self.efficiency}

    @property
    def slowest(self) -> str:
        """The bottleneck: "models" or "cores"."""
        busy = self.machine_hours
        return max(busy, key=lambda name: busy[name])

    @property
    def hours(self) -> float:
        """Wall-clock hours with all machines."""
        return max(self.machine_hours.values()) / self.machines

    @property
    def money(self) -> float:
        """Price of indexing once."""
        return self.hours * self.machines * self.hardware.price_per_hour

    def machines_within(self, hours: float) -> int:
        """Return the number of machines that finish within some hours."""
        return math.ceil(max(self.machine_hours.values()) / hours)

    @property
    def vectors(self) -> float:
        """Number of vectors of one copy."""
        return self.items * (1 + self.reasoned)

    @property
    def full_bytes(self) -> float:
        """Bytes of the full vectors of one copy, float32."""
        return self.vectors * self.costs.dimension * 4

    @property
    def compact_bytes(self) -> float:
        """Bytes of the quantized vectors of one copy; 0 without quantization."""
        if self.keeping.quantization == "none":
            return 0.0
        return self.vectors * self.costs.dimension * BITS[self.keeping.quantization] / 8

    @property
    def graph_bytes(self) -> float:
        """Bytes of the links of one copy's HNSW graphs."""
        return self.vectors * 2 * self.keeping.links * 4

    @property
    def ram_bytes(self) -> float:
        """RAM for all copies: the vectors that a search scans first, the graph, and the engine's overhead."""
        full_in_memory = self.keeping.full_in_memory or self.keeping.quantization == "none"
        looked_through = self.compact_bytes + (self.full_bytes if full_in_memory else 0.0)
        return (looked_through + self.graph_bytes) * self.keeping.overhead * self.keeping.replicas

    @property
    def disk_bytes(self) -> float:
        """Disk for all copies: everything, and the full vectors twice while segments are merged."""
        kept = self.full_bytes + self.compact_bytes + self.graph_bytes + self.items * self.costs.payload_bytes
        return (kept + self.full_bytes) * self.keeping.replicas

    @property
    def nodes(self) -> int:
        """Number of nodes, at least one per copy."""
        ram = math.ceil(self.ram_bytes / (self.keeping.node_ram_gb * 1e9))
        disk = math.ceil(self.disk_bytes / (self.keeping.node_disk_gb * 1e9))
        return max(ram, disk, self.keeping.replicas)

    @property
    def shards(self) -> int:
        """Number of shards: a multiple of the nodes of one copy, for equal load, with at most `points_a_shard` each."""
        share = max(1, math.ceil(self.nodes / self.keeping.replicas))
        return math.ceil(max(self.items / self.keeping.points_a_shard, 1) / share) * share

    @property
    def serving_money_per_month(self) -> float:
        """Price of the nodes for 30 days."""
        return self.nodes * self.keeping.node_price_per_hour * 24 * 30

    def tokens_saved(self, reasoned: float) -> float:
        """Return the tokens saved by reasoning over a smaller share of the items (`ume enrich --budget`)."""
        return self.items * max(0.0, self.reasoned - reasoned) * self.costs.reason_tokens

    @property
    def bytes_a_point(self) -> float:
        """Bytes of a point of one copy: its vectors, links and fields."""
        return (self.full_bytes + self.compact_bytes + self.graph_bytes) / self.items + self.costs.payload_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        names = ["items", "machines", "reasoned", "seconds", "machine_hours", "slowest", "hours", "money"]
        names += ["bytes_a_point", "nodes", "shards", "serving_money_per_month"]
        return {
            **{name: getattr(self, name) for name in names},
            "hardware": self.hardware.name,
            "ram_gb": self.ram_bytes / 1e9,
            "disk_gb": self.disk_bytes / 1e9,
            "sources": {"costs": self.costs.source, "hardware": self.hardware.source},
        }


def with_numbers(plan: CapacityPlan, numbers: Mapping[str, Any]) -> CapacityPlan:
    """Replace numbers of a plan by the names of their attributes.

    Args:
        plan: The plan.
        numbers: Values by name, of the plan, its costs, hardware or keeping.

    Raises:
        InputError: When a name is unknown, or a value has another type.

    Example:
        >>> from ume_ray.capacity_numbers import ASSUMED, GPU
        >>> plan = with_numbers(CapacityPlan(1e6, ASSUMED, GPU), {"price_per_hour": 1.5, "quantization": "binary"})
        >>> plan.hardware.price_per_hour
        1.5
    """
    parts: dict[str, Any] = {"costs": plan.costs, "hardware": plan.hardware, "keeping": plan.keeping}
    own = {one.name for one in fields(plan)} - parts.keys()
    for name, value in numbers.items():
        holder = next((key for key, part in parts.items() if name in {one.name for one in fields(part)}), None)
        before = getattr(plan if name in own else parts.get(holder or "", plan), name, None)
        if name not in own and holder is None:
            known = sorted(own | {one.name for part in parts.values() for one in fields(part)})
            raise InputError(f"unknown number {name!r}", hint=f"use {', '.join(known)}")
        checked = _as(name, value, before)
        if holder is None:
            plan = replace(plan, **{name: checked})
        else:
            parts[holder] = replace(parts[holder], **{name: checked})
    return replace(plan, **parts)


def _as(name: str, value: Any, like: Any) -> Any:
    """Convert a value to the type of the number."""
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[str(value).lower()]
        converted = type(like)(float(value)) if isinstance(like, int) else type(like)(value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is {value!r}", hint=f"use a {type(like).__name__}, such as {like}") from error
    if name == "quantization" and converted not in BITS:
        raise InputError(f"unknown quantization {value!r}", hint=f"use {', '.join(BITS)}")
    return converted


def rows(plans: Sequence[CapacityPlan]) -> list[list[str]]:
    """Tabulate plans: each row is a name, then a cell per plan.

    Example:
        >>> from ume_ray.capacity_numbers import ASSUMED, GPU
        >>> rows([CapacityPlan(1e6, ASSUMED, GPU)])[0]
        ['decode, core-hours', '14']
    """
    table: list[list[str]] = []
    for stage, unit in (("decode", "core"), ("reason", "model"), ("embed", "model"), ("write", "core")):
        table.append([f"{stage}, {unit}-hours", *(short(plan.seconds[stage] / HOUR) for plan in plans)])
    table += [
        ["machines", *(f"{plan.machines:,}" for plan in plans)],
        ["hours", *(short(plan.hours) for plan in plans)],
        ["busiest", *(plan.slowest for plan in plans)],
        ["money, once", *(short(plan.money) for plan in plans)],
        ["bytes a point", *(short(plan.bytes_a_point) for plan in plans)],
        ["RAM, GB", *(short(plan.ram_bytes / 1e9) for plan in plans)],
        ["disk, GB", *(short(plan.disk_bytes / 1e9) for plan in plans)],
        ["nodes", *(f"{plan.nodes:,}" for plan in plans)],
        ["shards", *(f"{plan.shards:,}" for plan in plans)],
        ["money a month", *(short(plan.serving_money_per_month) for plan in plans)],
    ]
    return table


def short(number: float) -> str:
    """Format a number with two significant digits.

    Example:
        >>> short(0), short(0.0123), short(1.55), short(14.2), short(1234567)
        ('0', '0.012', '1.6', '14', '1,200,000')
    """
    if number == 0:
        return "0"
    digits = 1 - math.floor(math.log10(abs(number)))
    rounded = round(number, digits)
    return f"{rounded:,.{max(0, digits)}f}"
