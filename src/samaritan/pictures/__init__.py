"""Pictures of volumes with prompts and contours, for people to look at.

Radiological convention: the patient's right is on the left of axial and coronal planes, the front is on the
left of sagittal planes, the head is up. Planes are views of the array, turned and never resampled; letters
at the edges say where R, L, A, P, S and I are.
"""

from samaritan.pictures.drawing import draw, save_picture

__all__ = ["draw", "save_picture"]
