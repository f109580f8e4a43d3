"""Data sets: manifests of cases, where they come from, checks, slices, and datasets to train on."""

from samaritan.data.checking import Problem, Report, check
from samaritan.data.manifest import Case, Group, LabelKind, Manifest, Place
from samaritan.data.sources import SourceOptions, find_source, load_manifest

__all__ = [
    "Case",
    "Group",
    "LabelKind",
    "Manifest",
    "Place",
    "Problem",
    "Report",
    "SourceOptions",
    "check",
    "find_source",
    "load_manifest",
]
