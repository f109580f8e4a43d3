"""Masks on disk measured against references, and the report that people read: tables, charts, pictures."""

from samaritan.evaluation.comparing import Comparison, compare
from samaritan.evaluation.matching import Group, Pair, match, read_groups
from samaritan.evaluation.report import Picture, Report, write_report

__all__ = [
    "Comparison",
    "Group",
    "Pair",
    "Picture",
    "Report",
    "compare",
    "match",
    "read_groups",
    "write_report",
]
