"""Composes the example scenes from the photographic cut-outs of Tux Paint's stamps.

    python examples/make_examples.py --stamps FOLDER

FOLDER is the `stamps` folder of the Debian package tuxpaint-stamps-default.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

FOLDER = Path(__file__).parents[1] / "dsvlfs" / "page" / "examples"
SIZE = (480, 360)
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Backdrop:
    """Two surfaces that meet at a horizon; each fades from its upper to its lower colour.

    Args:
        far: colours of what is above the horizon.
        near: colours of what is below it.
        horizon: height of the line, as a share of the picture's, from the top.
        grain: standard deviation of the texture of the near surface, in grey levels.
    """

    far: tuple[Colour, Colour]
    near: tuple[Colour, Colour]
    horizon: float
    grain: float

    def draw(self, rng: np.random.Generator) -> Image.Image:
        """The empty scene."""
        width, height = SIZE
        line = round(self.horizon * height)
        rows = np.concatenate([_fade(self.far, line), _fade(self.near, height - line)])
        pixels = np.repeat(rows[:, None], width, axis=1)
        depth = np.clip((np.arange(height) - line) / (height - line), 0, 1)[:, None]
        pixels += ((0.15 + depth) * self.grain * _texture(rng, (height, width)))[..., None]
        pixels += rng.normal(scale=2, size=pixels.shape)  # a camera's noise, so that no surface is perfectly flat
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))


@dataclass(frozen=True)
class Placed:
    """A stamp in a scene.

    Args:
        stamp: path inside the stamps' folder, without its suffix.
        height: in pixels.
        x: of its centre, as a share of the picture's width.
        base: of its lower edge, as a share of the picture's height.
        flip: mirrored left to right.
        shadow: whether it stands on the ground.
    """

    stamp: str
    height: int
    x: float
    base: float
    flip: bool = False
    shadow: bool = True

    def onto(self, scene: Image.Image, stamps: Path) -> np.ndarray:
        """Draws the stamp into the scene.

        Returns:
            Its mask, bool (height, width).
        """
        image = Image.open(stamps / f"{self.stamp}.png").convert("RGBA")
        image = image.crop(image.getchannel("A").getbbox())
        image = image.resize((round(image.width * self.height / image.height), self.height), Image.Resampling.LANCZOS)
        if self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        left = round(self.x * scene.width - image.width / 2)
        top = round(self.base * scene.height - image.height)
        if self.shadow:
            _cast_shadow(scene, left, left + image.width, top + image.height)
        scene.paste(image, (left, top), image)
        alpha = Image.new("L", scene.size)
        alpha.paste(image.getchannel("A"), (left, top))
        return np.array(alpha) >= 128


@dataclass(frozen=True)
class Example:
    """A support with one object of the class, and a query with another one among objects of other classes."""

    name: str
    class_name: str
    description: str
    backdrops: tuple[Backdrop, Backdrop]
    support: Placed
    query: tuple[Placed, ...]

    def write(self, stamps: Path, folder: Path) -> dict[str, str]:
        """Draws and saves the pictures.

        Returns:
            The example's entry in `examples.json`.
        """
        rng = np.random.default_rng(len(self.name))
        support, query = (backdrop.draw(rng) for backdrop in self.backdrops)
        mask = self.support.onto(support, stamps)
        for placed in self.query:
            placed.onto(query, stamps)
        files = {
            "support_image": f"{self.name}_support.jpg",
            "support_mask": f"{self.name}_support_mask.png",
            "query_image": f"{self.name}_query.jpg",
        }
        support.save(folder / files["support_image"], quality=90)
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / files["support_mask"], optimize=True)
        query.save(folder / files["query_image"], quality=90)
        return {"class_name": self.class_name, "description": self.description, **files}


SNOW = Backdrop(far=((141, 178, 214), (206, 222, 235)), near=((222, 230, 237), (240, 243, 246)), horizon=0.42, grain=6)
BEACH = Backdrop(far=((120, 164, 196), (176, 200, 211)), near=((190, 172, 142), (214, 198, 168)), horizon=0.5, grain=9)
PALE_ROOM = Backdrop(far=((214, 208, 198), (226, 221, 212)), near=((139, 98, 64), (168, 122, 82)), horizon=0.8, grain=7)
GREEN_ROOM = Backdrop(far=((138, 156, 146), (160, 176, 164)), near=((92, 74, 62), (122, 99, 82)), horizon=0.74, grain=7)
MEADOW = Backdrop(far=((150, 190, 226), (206, 222, 228)), near=((112, 146, 74), (92, 128, 52)), horizon=0.38, grain=13)
YARD = Backdrop(far=((176, 160, 140), (196, 182, 162)), near=((150, 128, 96), (172, 150, 116)), horizon=0.45, grain=11)

EXAMPLES = (
    Example(
        name="penguin",
        class_name="penguin",
        description="An upright seabird with a dark back, a white belly, short flippers and a pointed beak.",
        backdrops=(BEACH, SNOW),
        support=Placed("animals/birds/magellanic_penguin", 270, 0.47, 0.93),
        query=(
            Placed("vehicles/flight/balloon360", 110, 0.2, 0.4, shadow=False),
            Placed("vehicles/auto/truck", 64, 0.2, 0.86),
            Placed("animals/birds/penguin", 206, 0.57, 0.88),
            Placed("food/fruit/orange_seville", 84, 0.84, 0.83),
        ),
    ),
    Example(
        name="guitar",
        class_name="guitar",
        description="A string instrument with a long fretted neck, six tuning pegs and a waisted wooden body.",
        backdrops=(PALE_ROOM, GREEN_ROOM),
        support=Placed("hobbies/music/string/guitar_classical", 318, 0.5, 0.95),
        query=(
            Placed("animals/mammals/bears/toys/edward_bear", 150, 0.17, 0.93),
            Placed("hobbies/music/percussion/drumkit", 190, 0.48, 0.9),
            Placed("hobbies/music/string/guitar2", 284, 0.8, 0.93),
        ),
    ),
    Example(
        name="pig",
        class_name="pig",
        description="A stout farm animal with short legs, a flat round snout and floppy ears.",
        backdrops=(YARD, MEADOW),
        support=Placed("animals/mammals/pig", 190, 0.5, 0.82),
        query=(
            Placed("vehicles/wheel_tractor", 120, 0.15, 0.62),
            Placed("food/fruit/cherimoya", 76, 0.8, 0.64),
            Placed("animals/mammals/pig_golden2", 118, 0.42, 0.9),
            Placed("animals/birds/rooster", 92, 0.86, 0.94),
        ),
    ),
)


def _fade(colours: tuple[Colour, Colour], rows: int) -> np.ndarray:
    """(rows, 3), from the first colour to the second."""
    return np.linspace(*np.array(colours, dtype=float), rows)


def _texture(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Smooth noise of several scales, wider than high as ground seen at a slant, with unit variance."""
    total = np.zeros(shape)
    for cells in (6, 24, 96):
        coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        total += np.array(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))
    return total / total.std()


def _cast_shadow(scene: Image.Image, left: int, right: int, ground: int) -> None:
    """Darkens an ellipse on the ground below an object."""
    shade = Image.new("L", scene.size)
    inset, depth = (right - left) // 10, 4 + (right - left) // 22
    ImageDraw.Draw(shade).ellipse((left + inset, ground - 2 * depth, right - inset, ground + depth // 2), fill=110)
    scene.paste((30, 28, 26), mask=shade.filter(ImageFilter.GaussianBlur(depth * 0.6)))


def main() -> None:
    """Writes the pictures and `examples.json` into the package."""
    parser = argparse.ArgumentParser(description="Compose the example scenes.")
    parser.add_argument("--stamps", type=Path, required=True, help="the stamps' folder")
    stamps = parser.parse_args().stamps
    entries = [example.write(stamps, FOLDER) for example in EXAMPLES]
    (FOLDER / "examples.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
