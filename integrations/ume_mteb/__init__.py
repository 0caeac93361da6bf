"""A `ReasoningEmbedder` as a model of mteb (MIEB, ViDoRe, MVEB and the text benchmarks).

import mteb
from ume_mteb import UmeEncoder

model = UmeEncoder("qwen3-vl-embedding-2b", reasoning="never")
mteb.evaluate(model, mteb.get_tasks(tasks=["VidoreArxivQARetrieval"]))
"""

from ume_mteb.encoder import UmeEncoder

__all__ = ["UmeEncoder"]
