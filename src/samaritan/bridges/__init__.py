"""Doors by which other programs use what is here: each loads its program when it is gone through.

Nothing in this package stands on a bridge.
"""
