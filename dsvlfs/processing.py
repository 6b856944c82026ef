"""Photos, masks and names to tensors, and logits back to masks of the photo's own size."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .bases import resolve_base
from .calibration import Calibration, expected_iou
from .configuration import IMAGE_TOKEN, SEMANTIC_TOKEN, DSVLFSConfig
from .errors import InputError
from .presence import presence
from .semantic_encoder import Question

Photo = Image.Image | np.ndarray | str | os.PathLike

MAX_NAME, MAX_DESCRIPTION = 200, 2000  # characters

# Pillow's decoders raise any of these for a damaged file: AVIF's, RuntimeError.
DECODING_ERRORS = (OSError, ValueError, SyntaxError, RuntimeError, EOFError)


@dataclass(frozen=True)
class Segmentation:
    """The result for one photo, in the photo's own size.

    Args:
        mask: bool (height, width).
        probability: float32 (height, width), of the class, in [0, 1].
        votes: uint16 (height, width), how many of the shots, each alone, reach the threshold.
        expected_iou: the IoU to expect of the mask, in [0, 1], by the calibrated probability; None where there is no
            calibration.
        presence: how much speaks for the class being in the photo, in [0, 1] (`dsvlfs.presence`): a score to compare,
            no probability. None where there is no calibration.
        is_emptied: whether the mask was left empty for its presence.
    """

    mask: np.ndarray
    probability: np.ndarray
    votes: np.ndarray
    expected_iou: float | None = None
    presence: float | None = None
    is_emptied: bool = False


@dataclass(frozen=True)
class Prediction:
    """What the mask decoder says of one photo, before a threshold: small to keep, and a mask at any threshold and size
    without the model.

    Args:
        logits: float32 (max(K, 1), h, w) on the CPU, one map a shot, over the whole photo.
        size: (width, height) of the photo.
        vote_threshold: share of the largest vote count at which a pixel is foreground.
        joined: float32 (h, w), what the shots say together where they do not vote; None where they do.
        calibration: of the logits; None where there is none.
        fits: how well what the mask covers fits the name, the supports, or each: cosines.
        min_presence: where the presence is lower, a mask is left empty unless asked otherwise.
    """

    logits: Tensor
    size: tuple[int, int]
    vote_threshold: float
    joined: Tensor | None = None
    calibration: Calibration | None = None
    fits: tuple[float, ...] = ()
    min_presence: float = 0.0

    def segmentation(
        self, threshold: float = 0.5, size: tuple[int, int] | None = None, *, min_presence: float | None = None
    ) -> Segmentation:
        """Makes the mask.

        Args:
            threshold: probability from which on a pixel is foreground, or a shot votes for it.
            size: (width, height) of the result; None takes the photo's.
            min_presence: where the presence is lower, the mask is left empty; None takes this prediction's own, 0
                empties none, nor does any value where there is no calibration.

        Returns:
            Of shots that vote, the probability is their mean, and the mask holds the pixels whose votes reach
            `vote_threshold` of the largest count (arXiv 2503.04006, section 3.4).
        """
        size = size or self.size
        votes = np.zeros(size[::-1], dtype=np.uint16)
        total = np.zeros(size[::-1], dtype=np.float32)
        for logits in self.logits:  # one by one: at a large photo's size a map takes much memory
            probability = _probability(logits, size)
            votes += probability >= threshold
            total += probability
        probability = total / len(self.logits)
        mask = (votes > 0) & (votes >= self.vote_threshold * votes.max())
        if self.joined is not None:
            probability = _probability(self.joined, size)
            mask = probability >= threshold
        if self.calibration is None:
            return Segmentation(mask, probability, votes)
        expected = expected_iou(mask, self.calibrated(size))
        score = presence([expected, *self.fits])
        is_emptied = score < (self.min_presence if min_presence is None else min_presence)
        return Segmentation(mask & (not is_emptied), probability, votes, expected, score, is_emptied)

    @property
    def deciding(self) -> Tensor:
        """The logits that the mask is made of (maps, h, w): one map a shot where they vote, else one."""
        return self.logits if self.joined is None else self.joined[None]

    def calibrated(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """The calibrated probability, float32 (height, width); of shots that vote, their mean.

        Args:
            size: (width, height) of the result; None takes the photo's.

        Raises:
            ValueError: there is no calibration.
        """
        if self.calibration is None:
            raise ValueError("This checkpoint has no calibration.")
        maps = [_probability(self.calibration(logits), size or self.size) for logits in self.deciding]
        return sum(maps) / len(maps)


def _probability(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Logits (h, w) as a probability (height, width)."""
    full = F.interpolate(logits[None, None], size[::-1], mode="bilinear", align_corners=False)[0, 0]
    return full.sigmoid_().numpy()


@dataclass(frozen=True)
class View:
    """What the encoders see of a photo, batch of one.

    Args:
        image_pixels: (1, 3, image size, image size).
        vlm_pixels: (1, 3, VLM image size, VLM image size).
        valid: (width, height) of the photo inside the square of `image_pixels`, in pixels; the rest is padding.
        size: (width, height) of the photo.
    """

    image_pixels: Tensor
    vlm_pixels: Tensor
    valid: tuple[int, int]
    size: tuple[int, int]


def load_photo(source: Photo) -> Image.Image:
    """A photo as RGB, upright.

    Args:
        source: a path, a PIL image, or an array (height, width) or (height, width, 3 or 4): uint8, bool, or float in
            [0, 1]. 16-bit gray is scaled to 8 bits.

    Raises:
        InputError: it cannot be read.
    """
    image = _image_of_array(source) if isinstance(source, np.ndarray) else _image_of(source, "photo")
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            values = np.asarray(image)
            if image.mode != "I" or values.max() > 255:  # Pillow would clip to white
                values = values / 257
            image = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
        return image.convert("RGB")
    except DECODING_ERRORS as error:
        raise InputError(f"The photo {_name(source)} cannot be decoded ({error}); give a whole JPEG or PNG.") from error


def load_mask(source: Photo, size: tuple[int, int]) -> np.ndarray:
    """A mask, foreground wherever it is above zero.

    Of several channels, any above zero counts; but where an alpha channel (the last of 2 or 4) is not opaque
    everywhere, it alone counts. A palette's colours count, not its indices.

    Args:
        source: a path, a PIL image, or an array (height, width) or (height, width, channels).
        size: (width, height) of its photo.

    Returns:
        bool (height, width).

    Raises:
        InputError: it cannot be read, has another size than the photo, or is empty.
    """
    if isinstance(source, np.ndarray):
        values = source
    else:
        image = _image_of(source, "mask")
        try:
            image = ImageOps.exif_transpose(image)
            if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or (image.mode == "P" and "transparency" in image.info):
                image = image.convert("RGBA")
            elif len(image.getbands()) > 1 or image.mode == "P":
                image = image.convert("RGB")
            values = np.asarray(image)
        except DECODING_ERRORS as error:
            raise InputError(f"The mask {_name(source)} cannot be decoded ({error}); give a whole PNG.") from error
    mask = _foreground(values)
    if mask.shape != (size[1], size[0]):
        raise InputError(
            f"The mask {_name(source)} is {mask.shape[1]} x {mask.shape[0]} pixels but its photo is "
            f"{size[0]} x {size[1]}; give a mask of the photo's size."
        )
    if not mask.any():
        raise InputError(f"The mask {_name(source)} is empty; mark the object with values other than zero.")
    return mask


class DSVLFSProcessor:
    """Turns a user's photos, masks and names into what `DSVLFSModel` takes, and its logits into masks.

    Args:
        config: of the model.
        tokenizer: of its language model; `<SEM_prompt>`, the config's markers and, where it lacks it, `<image>` are
            added.
    """

    def __init__(self, config: DSVLFSConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config = config
        self.tokenizer = tokenizer
        added = [IMAGE_TOKEN, SEMANTIC_TOKEN, *(config.photo_markers or [])]
        tokenizer.add_special_tokens({"additional_special_tokens": added})
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.semantic_token_id = tokenizer.convert_tokens_to_ids(SEMANTIC_TOKEN)

    @classmethod
    def from_config(cls, config: DSVLFSConfig) -> "DSVLFSProcessor":
        """With the tokenizer of the config's base.

        Raises:
            BaseNotAvailableError: the base cannot be had.
        """
        return cls(config, AutoTokenizer.from_pretrained(resolve_base(config.vlm_base or config.language_base)))

    def query_view(self, photo: Photo) -> View:
        """The whole photo, as a query is seen."""
        return self._view(load_photo(photo), self.config.image_size, self.config.vlm_image_size)

    def support_view(self, photo: Photo, mask: Photo) -> tuple[View, Tensor]:
        """The photo around its mask, as a support is seen, and the mask (1, size, size) in [0, 1] on the same square.

        Raises:
            InputError: the photo or the mask cannot be used.
        """
        image = load_photo(photo)
        foreground = load_mask(mask, image.size)
        if self.config.support_context is not None:
            box = context_box(foreground, self.config.support_context)
            image = image.crop(box)
            foreground = foreground[box[1] : box[3], box[0] : box[2]]
        size = self.config.support_size
        view = self._view(image, size, min(size, self.config.vlm_image_size))
        target = Image.fromarray(foreground.astype(np.uint8) * 255).resize(view.valid, Image.Resampling.BOX)
        canvas = torch.zeros(1, size, size)
        canvas[0, : view.valid[1], : view.valid[0]] = torch.from_numpy(np.array(target)) / 255
        return view, canvas

    def question(self, names: Sequence[tuple[str, str | None]], *, photo_tokens: int | None = None) -> Question:
        """Teacher-forced questions.

        Args:
            names: (class name, description or None) of each sample.
            photo_tokens: tokens of the photo in each; None takes the LLaVA's own number, 0 leaves the photo out.

        Raises:
            InputError: a class name is empty, or a name or description is no text, too long, or holds a token that
                has a meaning of its own to the language model.
        """
        if photo_tokens is None:
            photo_tokens = self.config.vlm_config["image_seq_length"]
        questions = []
        for class_name, description in names:
            class_name = self._plain_text(class_name, "class name", MAX_NAME)
            if not class_name:
                raise InputError("The class name is empty; name what is to be segmented, such as 'red fox'.")
            description = self._plain_text("" if description is None else description, "description", MAX_DESCRIPTION)
            text = self.config.prompt_template.format(
                image=IMAGE_TOKEN * photo_tokens, class_name=class_name, description=_as_sentence(description)
            )
            questions.append(self.tokenizer(text).input_ids)
        answer = self.tokenizer(self.config.answer_template, add_special_tokens=False).input_ids
        rows = [question + answer for question in questions]
        length = max(map(len, rows))
        padding = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        ids = torch.full((len(rows), length), padding)
        attention = torch.zeros_like(ids)
        labels = torch.full_like(ids, -100)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            attention[i, : len(row)] = 1
            labels[i, len(questions[i]) : len(row)] = torch.tensor(answer)
        position = answer.index(self.semantic_token_id)
        semantic = torch.tensor([len(question) + position for question in questions])
        return Question(ids, attention, labels, semantic)

    def prediction(
        self, logits: Tensor, valid: tuple[int, int], size: tuple[int, int], joined: Tensor | None = None
    ) -> Prediction:
        """Logits (maps, h, w), and (1, h, w) of what they say together, on the square query view, brought back to the
        photo; `valid` and `size` are its view's."""
        joined = None if joined is None else self._on_photo(joined, valid)[0]
        calibration = Calibration(*self.config.calibration) if self.config.calibration else None
        return Prediction(self._on_photo(logits, valid), size, self.config.vote_threshold, joined, calibration)

    def _on_photo(self, logits: Tensor, valid: tuple[int, int]) -> Tensor:
        side = self.config.image_size
        width, height = valid
        if (width, height) != (side, side):
            logits = F.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
            logits = logits[:, :height, :width]
        return logits.detach().float().cpu() + self.config.logit_offset

    def _plain_text(self, text: str, kind: str, limit: int) -> str:
        """A user's text on one line, once it is known to be safe in a prompt."""
        if not isinstance(text, str):
            raise InputError(f"The {kind} is of type {type(text).__name__}; give text.")
        text = " ".join(text.split())
        if len(text) > limit:
            raise InputError(f"The {kind} has {len(text):,} characters; give at most {limit:,}.")
        for token in self.tokenizer.all_special_tokens:
            if token in text:
                raise InputError(f"The {kind} holds '{token}', a token reserved for the model; leave it out.")
        return text

    def _view(self, image: Image.Image, image_size: int, vlm_size: int) -> View:
        config = self.config
        valid = (image_size, image_size)
        if config.pad_to_square:
            scale = image_size / max(image.size)
            valid = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        pixels = _normalised(image.resize(valid, Image.Resampling.BICUBIC), config.image_mean, config.image_std)
        canvas = torch.zeros(1, 3, image_size, image_size)
        canvas[0, :, : valid[1], : valid[0]] = pixels
        square = image.resize((vlm_size, vlm_size), Image.Resampling.BICUBIC)
        return View(canvas, _normalised(square, config.vlm_mean, config.vlm_std)[None], valid, image.size)


def _normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def context_box(mask: np.ndarray, context: float) -> tuple[int, int, int, int]:
    """Square of `context` times the longer side of the mask's bounding box about its centre, cut at the photo's edge:
    (left, top, right, bottom) in pixels."""
    ys, xs = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    left, right, top, bottom = xs[0], xs[-1] + 1, ys[0], ys[-1] + 1
    half = max(right - left, bottom - top) * context / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    height, width = mask.shape
    return (
        int(max(0, x - half)),
        int(max(0, y - half)),
        int(min(width, np.ceil(x + half))),
        int(min(height, np.ceil(y + half))),
    )


def _as_sentence(text: str) -> str:
    """A description as it stands in a prompt: closed, followed by a space; nothing where there is none."""
    if not text:
        return ""
    return f"{text} " if text[-1] in ".!?" else f"{text}. "


def open_image(path: str | os.PathLike, kind: str) -> Image.Image:
    """Opens and decodes an image file.

    Args:
        kind: what to call it in an error.

    Raises:
        InputError: it is missing, damaged, too large or no image.
    """
    try:
        image = Image.open(path)
        image.load()
        return image
    except FileNotFoundError:
        raise InputError(f"There is no {kind} {path}; check the path.") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"The {kind} {path} is too large ({error}); scale it down first.") from error
    except DECODING_ERRORS as error:
        raise InputError(
            f"The {kind} {path} cannot be read: it is damaged, cut short, or no image; give a whole JPEG or PNG."
        ) from error


def _image_of(source: Image.Image | str | os.PathLike, kind: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, (str, os.PathLike)):
        return open_image(source, kind)
    raise InputError(f"A {kind} is of type {type(source).__name__}; give a path, a PIL image or a NumPy array.")


def _image_of_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise InputError(
            f"A photo array has shape {array.shape}; give (height, width) or (height, width, 3), uint8 or in [0, 1]."
        )
    if array.dtype == bool or (array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1):
        array = (array * 255.0).round().astype(np.uint8)
    if array.dtype != np.uint8:
        values = f" from {array.min():g} to {array.max():g}" if array.dtype.kind in "iuf" else ""
        raise InputError(f"A photo array is {array.dtype}{values}; give uint8, bool, or float from 0 to 1.")
    return Image.fromarray(array.squeeze(-1) if array.shape[2:] == (1,) else array)


def _foreground(values: np.ndarray) -> np.ndarray:
    """`load_mask`'s rule for values (height, width) or (height, width, channels)."""
    if values.ndim not in (2, 3) or values.dtype.kind not in "biuf":
        raise InputError(
            f"A mask array has shape {values.shape} and is {values.dtype}; give numbers (height, width) or "
            "(height, width, channels)."
        )
    if values.ndim == 2:
        return values > 0
    if values.shape[2] in (2, 4):
        colours, alpha = values[..., :-1], values[..., -1]
        opaque = 255 if values.dtype.kind in "iu" else 1
        # An opaque image with an alpha channel is drawn in its colours.
        values = alpha[..., None] if (alpha < opaque).any() else colours
    return (values > 0).any(axis=-1)


def _name(source: Photo) -> str:
    if isinstance(source, (str, os.PathLike)):
        return str(Path(source))
    return getattr(source, "filename", None) or "given"
