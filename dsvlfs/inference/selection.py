"""From a box or a few points to a mask of one object, by the model's own visual prompt.

There is no prompt encoder for boxes and points here. Instead the photo is its own support: the box is taken for the
mask, and matching the box's view against itself separates what fills the box from what surrounds it. How well that
does, `benchmarks/selection.py` measures: on 30 of the novel photos the box's mask has a mean IoU of 74 % with the
object (the box itself 53 %), a single point's 65 %; on 30 classes of COCO scenes, many of them several objects, 51 %
(44 %) and 22 %.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import InputError
from .checks import numbers_of, points_of
from .interface import Segmenter
from .photos import Photo, context_box, load_photo

Box = tuple[float, float, float, float]
Point = tuple[float, float]

CONTEXT = 1.6  # sides of the view that a box is seen in, in sides of the box
GRID = 64  # positions a side, of which neighbours hang together
SIMILAR = 0.25  # cosine from which a position belongs to the object that a point is on


def mask_in_box(model: Segmenter, photo: Photo, box: Box) -> np.ndarray:
    """The object that fills a box.

    Args:
        model: any size.
        photo: PIL image, array or path.
        box: (left, top, right, bottom) in pixels, in any order of its corners.

    Returns:
        bool (height, width) of the photo, False outside the box.

    Raises:
        InputError: the photo cannot be used, or the box has no area inside it.
    """
    box = numbers_of(box, 4, "The box")
    image = load_photo(photo)
    (left, right), (top, bottom) = sorted((box[0], box[2])), sorted((box[1], box[3]))
    left, right = (round(min(max(x, 0), image.width)) for x in (left, right))
    top, bottom = (round(min(max(y, 0), image.height)) for y in (top, bottom))
    if right - left < 2 or bottom - top < 2:
        raise InputError("The box has no area inside the photo; give two opposite corners around the object.")
    inside = np.zeros((image.height, image.width), dtype=bool)
    inside[top:bottom, left:right] = True
    x0, y0, x1, y1 = context_box(inside, CONTEXT)
    crop = image.crop((x0, y0, x1, y1))
    support = model.encode_support([(image, inside)])
    probability = model.segment(crop, "object", support=support, mode="visual").probability
    mask = np.zeros_like(inside)
    mask[y0:y1, x0:x1] = _follow_edges(probability, crop) >= 0.5
    return mask & inside


def mask_at_points(model: Segmenter, photo: Photo, inside: Sequence[Point], beside: Sequence[Point] = ()) -> np.ndarray:
    """The object or objects that points are on.

    What looks like the points and hangs together with them gives a box, and the box gives the mask, of which again only
    what hangs together with the points is kept.

    Args:
        model: any size.
        photo: PIL image, array or path.
        inside: (x, y) in pixels, on the object.
        beside: likewise, on what does not belong to it.

    Returns:
        bool (height, width) of the photo.

    Raises:
        InputError: the photo cannot be used, or no point is on the object.
    """
    inside, beside = ([numbers_of(point, 2, "A point") for point in points_of(points)] for points in (inside, beside))
    if not inside:
        raise InputError("No point is on the object; give at least one.")
    image = load_photo(photo)
    layers = [
        layer
        for name, layer in zip(model.config.correlation_layers, model.extract_layers(image))
        if name.startswith("image.")
    ]
    side = layers[0].shape[-1]
    cells = [[_cell(point, image.size, side) for point in points] for points in (inside, beside)]
    near = _similarity(layers, cells[0])
    far = _similarity(layers, cells[1]) if beside else np.full_like(near, -1)
    region = _connected((near > SIMILAR) & (near > far), cells[0])
    rows, columns = region.any(axis=1).nonzero()[0], region.any(axis=0).nonzero()[0]
    width, height = image.width / side, image.height / side
    grown = (columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 1.5, rows[-1] + 1.5)
    mask = mask_in_box(model, image, tuple(edge * cell for edge, cell in zip(grown, (width, height) * 2)))
    if beside:
        closer = Image.fromarray((near - far).astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR)
        mask &= np.asarray(closer) > 0
    coarse = F.adaptive_max_pool2d(torch.from_numpy(mask)[None].float(), GRID)[0].numpy() > 0
    coarse = _connected(coarse, [_cell(point, image.size, GRID) for point in inside])
    return mask & np.asarray(Image.fromarray(coarse).resize(image.size, Image.Resampling.NEAREST))


def _cell(point: Point, size: tuple[int, int], side: int) -> tuple[int, int]:
    """Row and column of the grid position that a pixel is in."""
    x, y = (min(max(int(place * side / length), 0), side - 1) for place, length in zip(point, size))
    return y, x


def _similarity(layers: Sequence[Tensor], cells: Sequence[tuple[int, int]]) -> np.ndarray:
    """Each position's largest cosine to one of some cells, (side, side); features are centred over the photo."""
    rows, columns = zip(*cells)
    total = 0
    for layer in layers:
        unit = F.normalize(layer.float() - layer.float().mean(dim=(1, 2), keepdim=True), dim=0)
        total = total + torch.einsum("cn,chw->nhw", unit[:, rows, columns], unit)
    return (total / len(layers)).amax(dim=0).cpu().numpy()


def _connected(region: np.ndarray, seeds: Sequence[tuple[int, int]]) -> np.ndarray:
    """The part of a region (height, width) that hangs together with one of its seeds, and the seeds themselves."""
    reached = np.zeros_like(region)
    reached[tuple(zip(*seeds))] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown = reached | (grown & region)
        if (grown == reached).all():
            return reached
        reached = grown


def _follow_edges(probability: np.ndarray, photo: Image.Image) -> np.ndarray:
    """Moves a probability's edges to the photo's: a guided filter (He et al., ECCV 2010) with the photo in grey."""
    guide = torch.from_numpy(np.array(photo.convert("L"), dtype=np.float32))[None, None] / 255
    values = torch.from_numpy(probability)[None, None]
    radius = max(2, max(photo.size) // 64)

    def mean(x: Tensor) -> Tensor:
        for kernel, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
            x = F.avg_pool2d(x, kernel, stride=1, padding=padding, count_include_pad=False)
        return x

    mean_guide, mean_values = mean(guide), mean(values)
    slope = (mean(guide * values) - mean_guide * mean_values) / (mean(guide * guide) - mean_guide**2 + 1e-3)
    return (mean(slope) * guide + mean(mean_values - slope * mean_guide))[0, 0].numpy()
