"""EG-RL: the Reasoner learns by GRPO to write T-CoTs with which the frozen Embedder retrieves better."""

from ume_training.egrl.process import Discriminator, Question, ReasonerDiscriminator, WordsDiscriminator
from ume_training.egrl.rewards import Outcome, format_reward, outcome_rewards
from ume_training.egrl.settings import EgrlSettings, RewardWeights, WatchSettings

__all__ = [
    "Discriminator",
    "EgrlSettings",
    "Outcome",
    "Question",
    "ReasonerDiscriminator",
    "RewardWeights",
    "WatchSettings",
    "WordsDiscriminator",
    "format_reward",
    "outcome_rewards",
]
