"""Stage 1 of Embed-RL: contrastive training of the Embedder (arXiv 2602.13823, section 4)."""

from ume_training.contrastive.loss import LOGIT_SCALE, matryoshka_infonce, symmetric_infonce
from ume_training.contrastive.pooling import pool_at_token, pool_last
from ume_training.contrastive.run import train_contrastive
from ume_training.contrastive.settings import ContrastiveSettings, LoraSettings

__all__ = [
    "LOGIT_SCALE",
    "ContrastiveSettings",
    "LoraSettings",
    "matryoshka_infonce",
    "pool_at_token",
    "pool_last",
    "symmetric_infonce",
    "train_contrastive",
]
