"""Computed stand-ins for medical images, with known answers: for tests, documents and demonstrations.

A phantom is called what it is: its `meta` and `notes` say that no patient was measured.
"""

from samaritan.phantoms.anatomy import LABEL_OF, ORGANS, Lesion
from samaritan.phantoms.body import Phantom, phantom
from samaritan.phantoms.picture import phantom_picture

__all__ = ["LABEL_OF", "ORGANS", "Lesion", "Phantom", "phantom", "phantom_picture"]
