"""The tests of the integrations share the small folder of tests/qdrant and the server of tests/faults."""

from __future__ import annotations

import sys
from pathlib import Path

for _room in ("qdrant", "faults", ""):
    sys.path.insert(0, str(Path(__file__).parents[1] / _room))
