"""The T-CoT as a value: its written form, its evidence, and the prompts that ask for it."""

from ume_retrieval.tcot.evidence import Evidence, EvidenceRef, extract
from ume_retrieval.tcot.grammar import PROBLEMS, is_usable, parse, pattern, render, split_for_evidence, validate
from ume_retrieval.tcot.prompts import DEFAULT_PROMPTS, reasoner_chat
from ume_retrieval.tcot.trace import Box, Problem, TCot

__all__ = [
    "DEFAULT_PROMPTS",
    "PROBLEMS",
    "Box",
    "Evidence",
    "EvidenceRef",
    "Problem",
    "TCot",
    "extract",
    "is_usable",
    "parse",
    "pattern",
    "reasoner_chat",
    "render",
    "split_for_evidence",
    "validate",
]
