"""Indexes a folder on a Ray of its own; with a third argument it is killed after so many points were written.

Usage: ray_kill_driver.py FOLDER STORE [POINTS]. Prints the report as JSON when it comes to its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from ume_qdrant import Progress
from ume_ray import Models, StoreAddress, WorkerPools, index
from ume_retrieval.testing import FakeReasoner, HashEmbedder


def main() -> None:
    folder, store = Path(sys.argv[1]), sys.argv[2]
    last = int(sys.argv[3]) if len(sys.argv) > 3 else None

    def settled(step: Progress) -> None:
        if last is not None and step.done >= last:
            os.kill(os.getpid(), signal.SIGKILL)

    import ray

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)
    report = index(
        Models(HashEmbedder, FakeReasoner, cache=None),
        StoreAddress(store, "things"),
        folder,
        reasoning="always",
        workers=WorkerPools(files_a_task=1, items_a_call=1),
        on_progress=settled,
    )
    sys.stdout.write(json.dumps({"points": report.points, **report.to_dict()}))
    ray.shutdown()


if __name__ == "__main__":
    main()
