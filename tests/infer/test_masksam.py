"""A model of mask classes and prompts: refused by name."""

from __future__ import annotations

import pytest

from samaritan import create_model
from samaritan.errors import PromptError
from samaritan.infer.engine import Engine


def test_prompts_are_refused_with_the_number_of_classes():
    engine = Engine(create_model("masksam_tiny", num_classes=5), device="cpu")
    with pytest.raises(PromptError, match="labels the whole image with 4 classes at once"):
        engine.require_prompts()
