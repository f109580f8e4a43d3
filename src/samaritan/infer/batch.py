"""Many images, one after the other: what one of them does wrong never stops the others."""

from __future__ import annotations

from samaritan.infer.classes import predict_labels

__all__ = ["predict_labels"]
