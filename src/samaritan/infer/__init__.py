"""From prompts to masks on the image's own grid."""

from samaritan.infer.everything import generate_masks
from samaritan.infer.predictor import Predictor
from samaritan.infer.session import Session

__all__ = ["Predictor", "Session", "generate_masks"]
