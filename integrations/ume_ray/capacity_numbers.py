"""Default numbers for a plan, from `capacity.json`.

`MEASURED` was measured with the bundled pair on one core of an AMD EPYC, tokens on two (benchmarks/results). `ASSUMED`
is a guess at a pair of 2 billion parameters on one GPU, to be replaced by your own measurements; so are the prices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

from ume_ray.capacity import Costs, Hardware

_DATA: Final[dict[str, Any]] = json.loads(files("ume_ray").joinpath("capacity.json").read_text(encoding="utf-8"))

COSTS: Final[Mapping[str, Costs]] = {name: Costs(**one) for name, one in _DATA["costs"].items()}
HARDWARE: Final[Mapping[str, Hardware]] = {name: Hardware(**one) for name, one in _DATA["hardware"].items()}
MEASURED, ASSUMED = COSTS["measured"], COSTS["assumed"]
CPU, GPU, GPUS = HARDWARE["cpu"], HARDWARE["gpu"], HARDWARE["gpus"]
