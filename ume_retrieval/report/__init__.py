"""Search results as pictures: each hit with its evidence drawn, as one HTML page and as a contact sheet."""

from __future__ import annotations

from ume_retrieval.report.annotate import draw_boxes
from ume_retrieval.report.contact_sheet import draw_contact_sheet, write_contact_sheet
from ume_retrieval.report.content import ReportHit, ReportPage, ReportQuery, ReportTable
from ume_retrieval.report.html import render_html, write_html

__all__ = [
    "ReportHit",
    "ReportPage",
    "ReportQuery",
    "ReportTable",
    "draw_boxes",
    "draw_contact_sheet",
    "render_html",
    "write_contact_sheet",
    "write_html",
]
