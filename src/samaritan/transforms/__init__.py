"""What happens to an image before a model sees it, and the way back to the image's own grid."""

from samaritan.transforms.cubes import CubePreprocess
from samaritan.transforms.focus import FocusPreprocess
from samaritan.transforms.preprocess import (
    PRIOR_LOGIT,
    Frame,
    Preprocess,
    Prompting,
    SlicePreprocess,
    default_preprocess,
)
from samaritan.transforms.windows import WindowPreprocess, neurosam3d_windows, sam_med3d_windows

__all__ = [
    "PRIOR_LOGIT",
    "CubePreprocess",
    "FocusPreprocess",
    "Frame",
    "Preprocess",
    "Prompting",
    "SlicePreprocess",
    "WindowPreprocess",
    "default_preprocess",
    "neurosam3d_windows",
    "sam_med3d_windows",
]
