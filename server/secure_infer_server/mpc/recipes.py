"""What a dealer deals and a party keeps: bounds on recipes, checked on both sides."""

from __future__ import annotations

# Kinds of correlations are known once their modules are loaded.
import secure_infer.mpc.comparison
import secure_infer.mpc.crypten.needs  # noqa: F401
from secure_infer.errors import MalformedRequest, ResourceExhausted
from secure_infer.mpc.correlations import MAX_WORDS, Recipe, WeightProduct
from secure_infer.mpc.masks import mask_bytes

MAX_RECIPE_BYTES = 64 << 10
MAX_MASK_BYTES = 128 << 20
"""Masks of shared weights in one epoch; the dealer's products keep three further copies, as float64."""

MAX_MESSAGE = 8 * MAX_WORDS + (64 << 10)
"""Bytes of one message of a dealer."""

MAX_CREDITS = 4096
"""Bundles of one recipe that a party may have asked for and not received."""

HEARD = ("secure-infer-dealer", "hears")
"""Initial metadata of a stream that a dealer has taken: gRPC makes empty metadata of a refused connection, too."""

_DIGEST_BYTES = 32


def foreign(data: bytes) -> Recipe:
    """The recipe that a party sent. Raises MalformedRequest for anything but the canonical JSON of a recipe whose program is
    a digest and whose weight tensors have one shape each, ResourceExhausted for one too large to deal."""
    if len(data) > MAX_RECIPE_BYTES:
        raise MalformedRequest(f"recipe: expected at most {MAX_RECIPE_BYTES} bytes, got {len(data)}")
    recipe = Recipe.from_json(data)
    if recipe.as_json() != data:
        raise MalformedRequest("recipe: expected canonical JSON, as `Recipe.as_json` writes it")
    return checked(recipe)


def checked(recipe: Recipe) -> Recipe:
    """`recipe`, when it can be dealt; errors as of `foreign`."""
    program_key(recipe)
    if recipe.rows < 1 or not recipe.needs:
        raise MalformedRequest(f"recipe: expected rows and needs, got {recipe.rows} and {len(recipe.needs)}")
    shapes = recipe.tensors()
    for need in recipe.needs:
        if isinstance(need, WeightProduct) and shapes[need.tensor] != (need.inputs, need.outputs):
            raise MalformedRequest(f"recipe: weight tensor {need.tensor} is given two shapes")
    if recipe.words(1) > MAX_WORDS:
        raise ResourceExhausted(
            f"recipe: {recipe.rows} rows take {recipe.words(1)} words, at most {MAX_WORDS} are dealt at once; send fewer rows"
        )
    if mask_bytes(shapes) > MAX_MASK_BYTES:
        raise ResourceExhausted(
            f"recipe: weight masks of {mask_bytes(shapes)} bytes, at most {MAX_MASK_BYTES} are kept"
        )
    return recipe


def program_key(recipe: Recipe) -> bytes:
    """The program's digest as bytes; raises MalformedRequest for what is none."""
    try:
        key = bytes.fromhex(recipe.program)
    except ValueError:
        key = b""
    if len(key) != _DIGEST_BYTES or key.hex() != recipe.program:
        raise MalformedRequest("recipe: its program is not a SHA-256 digest in hex")
    return key
