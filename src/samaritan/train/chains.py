"""The way from a picture to the input, as a recipe has it: one for training, validation and the weights."""

from __future__ import annotations

import logging
from dataclasses import replace

from samaritan.checkpoints.chains import sam_med2d_chain, samed_chain
from samaritan.data import Manifest
from samaritan.data.windows import Window
from samaritan.errors import ConfigError
from samaritan.models.config import SamConfig
from samaritan.recipes import Recipe
from samaritan.transforms import FocusPreprocess, Prompting, SlicePreprocess, default_preprocess

logger = logging.getLogger(__name__)


def chain_of(recipe: Recipe, config: SamConfig) -> SlicePreprocess:
    """The way from an image to the input: one object for training, validation and the checkpoint.

    Raises:
        ConfigError: if the model is not for pictures.
    """
    if config.ndim != 2:
        raise ConfigError(
            f"{config.name!r} is a 3D model: it is trained by task iterated, as recipe sam_med3d does"
        )
    if recipe.data.chain == "samed":
        chain = samed_chain(config)
    elif recipe.data.chain == "sam_med2d":
        chain = sam_med2d_chain(config)
        if recipe.compat.padded_small_pictures:
            chain = replace(chain, resize="pad")
    elif recipe.data.chain == "focus":
        chain = FocusPreprocess(size=(config.image_size[0], config.image_size[1]))
    else:
        made = default_preprocess(2, config.image_size, config.in_channels)
        assert isinstance(made, SlicePreprocess)
        chain = made
    chain = replace(chain, window=recipe.data.window)
    if recipe.task != "interactive":
        return chain
    prompts = recipe.prompts
    if prompts.each == "object":
        return replace(chain, prompting=Prompting(clicks="all", multimask="never"))
    prompting = Prompting(
        multimask="always" if prompts.multimask else "never", mask_values=prompts.mask_values
    )
    return replace(chain, prompting=prompting)


def with_window(chain: SlicePreprocess, slices: Manifest) -> SlicePreprocess:
    """Show volumes to the trained model as they were shown when the slices that it learns from were cut."""
    found = {group.volume_window for group in slices.groups.values()}
    known = ", ".join(sorted(str(window) for window in found if window is not None))
    if chain.window is not None:
        cut = Window(*chain.window)
        if known and found != {cut}:
            logger.warning(
                "data.window says %s, but the slices were cut with %s: the model will be shown volumes "
                "that it has not learned to see",
                cut,
                known,
            )
        return chain
    window = found.pop() if len(found) == 1 else None
    if window is None:
        if known:
            logger.warning(
                "the slices were cut with several windows (%s): the model will be shown volumes by their "
                "percentiles. Name one with data.window, or predict with --window",
                known,
            )
        return chain
    if window.percentiles:
        return replace(chain, percentiles=(window.low, window.high))
    return replace(chain, window=(window.low, window.high))
