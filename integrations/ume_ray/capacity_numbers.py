"""Numbers to begin a plan with: what was measured here, and what is assumed of larger models and of rented machines.

`MEASURED` was measured with the bundled pair on one CPU core (benchmarks/results); `ASSUMED` is a guess at real models
on a GPU that is there to be replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ume_ray.capacity import Costs, Hardware

MEASURED: Final = Costs(
    decode_core_s=0.000311,
    write_core_s=0.0001078,
    reason_tokens=31.3,
    reason_tokens_per_s=3571,
    embed_s=0.00191,
    dimension=128,
    payload_bytes=556,
    on="core",
    source="measured: ume-tiny on one CPU core (benchmarks/results)",
)
"""The bundled pair on one core of an AMD EPYC (tokens: on two); figures of a demonstration, not of real models."""

ASSUMED: Final = Costs(
    decode_core_s=0.05,
    write_core_s=0.002,
    reason_tokens=250,
    reason_tokens_per_s=4000,
    embed_s=0.003,
    dimension=2048,
    payload_bytes=3000,
    on="gpu",
    source="assumed: a pair of 2-billion-parameter models on one 80 GB GPU; replace by your own measurements",
)
"""A pair of 2 billion parameters on one GPU. Nobody measured this: it is the place for your numbers."""

CPU: Final = Hardware("16 CPU cores", "core", 12, 4, 0.80, "assumed price; replace it")
GPU: Final = Hardware("1 GPU (80 GB), 16 cores", "gpu", 1, 16, 2.50, "assumed price; replace it")
GPUS: Final = Hardware("8 GPUs (80 GB), 128 cores", "gpu", 8, 128, 20.00, "assumed price; replace it")

COSTS: Final[Mapping[str, Costs]] = {"measured": MEASURED, "assumed": ASSUMED}
HARDWARE: Final[Mapping[str, Hardware]] = {"cpu": CPU, "gpu": GPU, "gpus": GPUS}
