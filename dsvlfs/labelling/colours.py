"""A colour for each class, as PASCAL VOC's palette has them, and maps of classes as images."""

import numpy as np
from PIL import Image

from ..inference.pictures import TINT


def palette(entries: int = 256) -> list[tuple[int, int, int]]:
    """PASCAL VOC's colours: entry 0 is black, and the bits of a number are spread over the three channels."""
    colours = []
    for number in range(entries):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append(tuple(channels))
    return colours


def tint(class_number: int, classes: int) -> tuple[int, int, int]:
    """The colour of a class in an overlay; of a single class, the one that all overlays have."""
    return TINT if classes == 1 else palette()[1:][(class_number - 1) % 255]


def class_map_image(class_map: np.ndarray, classes: int) -> Image.Image:
    """A map of class numbers (height, width) as an image: of one class 0 and 255, of several the numbers with a
    palette, of more than 255 the numbers in 16 bits."""
    if classes == 1:
        return Image.fromarray((class_map > 0).astype(np.uint8) * 255)
    if classes > 255:
        return Image.fromarray(class_map.astype(np.uint16))
    image = Image.fromarray(class_map.astype(np.uint8))
    image.putpalette([value for colour in palette() for value in colour])
    return image


def class_map_of(image: Image.Image, classes: int) -> np.ndarray:
    """The map that `class_map_image` made an image of."""
    values = np.array(image)
    return (values > 0).astype(np.uint8) if classes == 1 else values
