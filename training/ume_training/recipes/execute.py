"""Which function runs which kind of stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ume_training.recipes.data_stages import run_annotate, run_filter
from ume_training.recipes.export_stage import run_export
from ume_training.recipes.model_stages import run_contrastive, run_egrl
from ume_training.recipes.small_pair import run_captions, run_questions, run_score, run_traces, run_vectors
from ume_training.recipes.stages import (
    AnnotateStage,
    CaptionsStage,
    ContrastiveStage,
    EgrlStage,
    ExportStage,
    FilterStage,
    QuestionsStage,
    ScoreStage,
    Stage,
    TracesStage,
    VectorsStage,
)
from ume_training.recipes.work import Made, Work

_EXECUTORS: Mapping[type[Stage], Callable[[Any, Work], Made]] = MappingProxyType(
    {
        CaptionsStage: run_captions,
        TracesStage: run_traces,
        QuestionsStage: run_questions,
        VectorsStage: run_vectors,
        AnnotateStage: run_annotate,
        FilterStage: run_filter,
        ContrastiveStage: run_contrastive,
        EgrlStage: run_egrl,
        ScoreStage: run_score,
        ExportStage: run_export,
    }
)


def execute(stage: Stage, work: Work) -> Made:
    """Run a stage, or go on with it; every `stage:NAME` in it has become a path.

    Args:
        stage: What to do.
        work: Where and with whom.
    """
    return _EXECUTORS[type(stage)](stage, work)
