"""Several photos laid out as one, so that a query holds more than the object that stands out."""

from collections.abc import Sequence

import numpy as np
from PIL import Image


def compose_mosaic(
    tiles: Sequence[tuple[Image.Image, np.ndarray]], rows: int = 2, columns: int = 2, tile_size: int = 256
) -> tuple[Image.Image, list[np.ndarray]]:
    """Lays photos out in a grid, row by row, each resized to a square tile.

    Args:
        tiles: rows x columns photos, each with a boolean mask of its own (height, width).
        tile_size: side of a tile in pixels.

    Returns:
        The scene, RGB, and every tile's mask at the scene's size: boolean (rows * tile_size, columns * tile_size),
        true nowhere outside the tile.

    Raises:
        ValueError: the number of tiles is not rows x columns.
    """
    if len(tiles) != rows * columns:
        raise ValueError(f"A mosaic of {rows} x {columns} needs {rows * columns} tiles, not {len(tiles)}.")
    scene = Image.new("RGB", (columns * tile_size, rows * tile_size))
    masks = []
    for index, (photo, mask) in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = row * tile_size, column * tile_size
        scene.paste(photo.convert("RGB").resize((tile_size, tile_size), Image.Resampling.BICUBIC), (left, top))
        tile_mask = Image.fromarray(mask.astype(np.uint8)).resize((tile_size, tile_size), Image.Resampling.NEAREST)
        scene_mask = np.zeros((rows * tile_size, columns * tile_size), dtype=bool)
        scene_mask[top : top + tile_size, left : left + tile_size] = np.asarray(tile_mask, dtype=bool)
        masks.append(scene_mask)
    return scene, masks
