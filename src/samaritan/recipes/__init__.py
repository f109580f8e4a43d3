"""Everything that fixes a training run, as typed and frozen values: YAML at the door, no torch.

A recipe comes from `get_recipe(name)`; `resolve` puts a file and single settings on top of one and tells
all that is wrong at once.
"""

from samaritan.recipes.lightning import Converted, from_lightning
from samaritan.recipes.loading import dump, load, resolve
from samaritan.recipes.published import get_recipe, recipe_names
from samaritan.recipes.rates import rate
from samaritan.recipes.schema import Recipe

__all__ = [
    "Converted",
    "Recipe",
    "dump",
    "from_lightning",
    "get_recipe",
    "load",
    "rate",
    "recipe_names",
    "resolve",
]
