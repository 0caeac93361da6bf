"""Export: trained models as folders that describe themselves, load anywhere, and carry a model card."""

from ume_training.export.card import Card, Score, StageFact, card_of_run, render_card
from ume_training.export.folder import Exported, export
from ume_training.export.merge import merge_embedder

__all__ = ["Card", "Exported", "Score", "StageFact", "card_of_run", "export", "merge_embedder", "render_card"]
