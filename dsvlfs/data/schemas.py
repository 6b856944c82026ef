"""What the lines and entries of data sets' files must hold: pydantic checks them before anything is made of them."""

from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, FailFast, Field, StringConstraints
from typing_extensions import TypedDict

from ..inference.photos import MAX_PIXELS

_Path = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
_Names = list[Name] | None
_Text = str | None
PhotoId = Annotated[str, Field(min_length=1)] | int
_Side = Annotated[int, Field(ge=1, le=MAX_PIXELS)]


def _is_readable(photo: dict[str, Any]) -> dict[str, Any]:
    if photo["height"] * photo["width"] > MAX_PIXELS:
        raise ValueError(f"it has more than {MAX_PIXELS / 1e6:.0f} million pixels")
    return photo


class _Masked(TypedDict):
    image: _Path
    mask: _Path
    synonyms: NotRequired[_Names]
    hypernyms: NotRequired[_Names]
    definition: NotRequired[_Text]
    ignore: NotRequired[_Path | None]
    split: NotRequired[_Text]


class MaskedPhoto(_Masked):
    """A line of `metadata.jsonl`: a photo, and the mask of what it shows."""

    name: NotRequired[Name]


class NamedPhoto(_Masked):
    """One that says what it shows."""

    name: Name


class Cutout(TypedDict):
    """A line of cut-outs' `metadata.jsonl`."""

    image: _Path
    name: Name
    category: Name


ClassNames = dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Name]
"""`classes.json`: names by class index."""


class _CocoPhoto(TypedDict):
    id: int
    height: _Side
    width: _Side
    file_name: _Path


class _LvisPhoto(TypedDict):
    id: int
    height: _Side
    width: _Side
    coco_url: _Path


CocoPhoto = Annotated[_CocoPhoto, AfterValidator(_is_readable)]
LvisPhoto = Annotated[_LvisPhoto, AfterValidator(_is_readable)]


class Category(TypedDict):
    """COCO's and LVIS's."""

    id: int
    name: Name
    supercategory: NotRequired[_Text]
    synonyms: NotRequired[_Names]


LvisCategory = TypedDict(
    "LvisCategory", {"id": int, "name": Name, "synonyms": NotRequired[_Names], "def": NotRequired[_Text]}
)


class Annotation(TypedDict):
    """COCO's and LVIS's; `dsvlfs.data.run_lengths` checks the segmentation, when the photo's size is known."""

    image_id: int
    category_id: int
    segmentation: Any


class CocoFile(TypedDict):
    """`instances_*.json`."""

    images: Annotated[list[CocoPhoto], FailFast()]
    annotations: Annotated[list[Annotation], FailFast()]
    categories: Annotated[list[Category], FailFast()]
