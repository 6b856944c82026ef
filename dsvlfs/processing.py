"""Photos, masks and names to tensors, and logits back to the photo."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from .configuration import IMAGE_TOKEN, SEMANTIC_TOKEN, DSVLFSConfig
from .errors import InputError
from .hub.bases import load_tokenizer
from .hub.checkpoint_files import checkpoint_folder, read_config
from .hub.options import override, sort_options
from .hub.saving import PROCESSOR_FILE
from .inference.calibration import Calibration
from .inference.checks import class_name_of, description_of
from .inference.encoded import View, on_square
from .inference.photos import Photo, context_box, load_mask, load_photo
from .inference.results import Prediction
from .parts.semantic_encoder import Question

MAX_NAME_TOKENS, MAX_DESCRIPTION_TOKENS = 150, 600  # a character can be several, and each costs the model time


class DSVLFSProcessor(ProcessorMixin):
    """Turns a user's photos, masks and names into what `DSVLFSModel` takes, and its logits into masks.

    Args:
        config: of the model.
        tokenizer: of its language model; `<SEM_prompt>`, the config's markers and, where it lacks it, `<image>` are
            added.
    """

    def __init__(self, config: DSVLFSConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer=tokenizer)
        self.config = config
        added = [IMAGE_TOKEN, SEMANTIC_TOKEN, *(config.photo_markers or [])]
        tokenizer.add_special_tokens({"additional_special_tokens": added})
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.semantic_token_id = tokenizer.convert_tokens_to_ids(SEMANTIC_TOKEN)

    @classmethod
    def from_config(cls, config: DSVLFSConfig, **hub_options: Any) -> "DSVLFSProcessor":
        """With the tokenizer of the config's base.

        Args:
            config: of the model.
            hub_options: of `dsvlfs.hub.bases.resolve_base`.

        Raises:
            BaseNotAvailableError: the base cannot be had.
        """
        return cls(config, load_tokenizer(config.vlm_base or config.language_base, **hub_options))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike = "dsvlfs-tiny",
        *,
        subfolder: str = "",
        revision: str | None = None,
        force_download: bool = False,
        **options: Any,
    ) -> "DSVLFSProcessor":
        """Of a checkpoint, or of what `save_pretrained` wrote.

        Args:
            name_or_path: as for `DSVLFSModel.from_pretrained`.
            subfolder, revision, force_download: likewise.
            options: `token`, `cache_dir`, `local_files_only`; those of the bases mean nothing here, the rest changes
                the config.

        Raises:
            InputError: there is no such checkpoint, or it is damaged.
            BaseNotAvailableError: the tokenizer, which is that of a base, cannot be had.
        """
        hub, _, changes = sort_options(options)
        of_checkpoint = {"subfolder": subfolder, "revision": revision, "force_download": force_download}
        folder = checkpoint_folder(name_or_path, **of_checkpoint, **hub)
        config = read_config(folder)
        override(config, changes)
        if (folder / "tokenizer_config.json").is_file():
            return cls(config, AutoTokenizer.from_pretrained(folder))
        return cls.from_config(config, **hub)

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **options: Any
    ) -> list[str]:
        """Writes the tokenizer, the config and `processor_config.json`; `DSVLFSModel.save_pretrained` leaves out the
        tokenizer, which is its base's.

        Args:
            save_directory: made where it is missing.
            push_to_hub: send them to the hub.
            options: of `push_to_hub`.
        """
        self.config.save_pretrained(save_directory)
        return super().save_pretrained(os.fspath(save_directory), push_to_hub=push_to_hub, **options)

    def to_dict(self) -> dict[str, Any]:
        """What `processor_config.json` says: all settings are in the config beside it."""
        return dict(PROCESSOR_FILE)

    def __call__(
        self, images: Photo | Sequence[Photo] | None = None, text: str | Sequence[str] | None = None, **_: Any
    ) -> BatchFeature:
        """Query photos and class names as tensors, as transformers' processors give them.

        Args:
            images: one photo or several.
            text: a class name or several.

        Returns:
            `image_pixels` and `vlm_pixels` of the photos (batch, 3, side, side); the fields of `Question` of the names.

        Raises:
            InputError: a photo or a name cannot be used.
        """
        tensors = {}
        if images is not None:
            photos = images if isinstance(images, (list, tuple)) else [images]
            views = [self.query_view(photo) for photo in photos]
            tensors = {name: torch.cat([getattr(v, name) for v in views]) for name in ("image_pixels", "vlm_pixels")}
        if text is not None:
            tensors |= vars(self.question([(name, None) for name in ([text] if isinstance(text, str) else text)]))
        return BatchFeature(tensors)

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
        return view, on_square(foreground, view) / 255

    def whole_view(self, photo: Photo, mask: Photo) -> tuple[View, Tensor]:
        """A support's whole photo, as a query is seen, and the mask (1, size, size) in [0, 1] on the same square.

        Raises:
            InputError: the photo or the mask cannot be used.
        """
        image = load_photo(photo)
        view = self.query_view(image)
        return view, on_square(load_mask(mask, image.size), view) / 255

    @property
    def templates(self) -> list[tuple[str, str]]:
        """Every question with its answer; inference asks by the first."""
        config = self.config
        return [
            (config.prompt_template, config.answer_template),
            *((question, answer) for question, answer in config.further_templates or []),
        ]

    def question(
        self,
        names: Sequence[tuple[str, str | None]],
        *,
        photo_tokens: int | None = None,
        variants: Sequence[int] | None = None,
    ) -> Question:
        """Teacher-forced questions.

        Args:
            names: (class name, description or None) of each sample.
            photo_tokens: tokens of the photo in each; None takes the LLaVA's own number, 0 leaves the photo out.
            variants: number of each sample's question in `templates`; None asks all by the first.

        Raises:
            InputError: a class name is empty, or a name or description is no text, too long, or holds a token that
                has a meaning of its own to the language model.
        """
        if photo_tokens is None:
            photo_tokens = self.config.vlm_config["image_seq_length"]
        questions, answers = [], []
        end = [self.tokenizer.eos_token_id] if self.config.answer_ends else []
        for (class_name, description), variant in zip(names, variants or [0] * len(names), strict=True):
            template, answer = self.templates[variant]
            class_name = self._plain_text(class_name_of(class_name), "class name", MAX_NAME_TOKENS)
            description = self._plain_text(description_of(description), "description", MAX_DESCRIPTION_TOKENS)
            text = template.format(
                image=IMAGE_TOKEN * photo_tokens, class_name=class_name, description=_as_sentence(description)
            )
            questions.append(self.tokenizer(text).input_ids)
            answers.append(self.tokenizer(answer, add_special_tokens=False).input_ids + end)
        rows = [question + answer for question, answer in zip(questions, answers)]
        length = max(map(len, rows))
        padding = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        ids = torch.full((len(rows), length), padding)
        attention = torch.zeros_like(ids)
        labels = torch.full_like(ids, -100)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            attention[i, : len(row)] = 1
            labels[i, len(questions[i]) : len(row)] = torch.tensor(answers[i])
        semantic = torch.tensor([len(q) + a.index(self.semantic_token_id) for q, a in zip(questions, answers)])
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

    def _plain_text(self, text: str, kind: str, token_limit: int) -> str:
        """A text on one line, once it is known to be safe in a prompt."""
        for token in self.tokenizer.all_special_tokens:
            if token in text:
                raise InputError(f"The {kind} holds '{token}', a token reserved for the model; leave it out.")
        tokens = len(self.tokenizer(text, add_special_tokens=False).input_ids)
        if tokens > token_limit:
            raise InputError(
                f"The {kind} is {tokens:,} tokens long to the language model, which reads {token_limit:,} at most; "
                "shorten it."
            )
        return text

    def _view(self, image: Image.Image, image_size: int, vlm_size: int) -> View:
        config = self.config
        valid = (image_size, image_size)
        if config.pad_to_square:
            scale = image_size / max(image.size)
            valid = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        resample = Image.Resampling[config.image_resample.upper()]
        pixels = _normalised(image.resize(valid, resample), config.image_mean, config.image_std)
        canvas = torch.zeros(1, 3, image_size, image_size, dtype=torch.float32)
        canvas[0, :, : valid[1], : valid[0]] = pixels
        box = _middle(image.size) if config.vlm_crop else None
        square = image.resize((vlm_size, vlm_size), Image.Resampling.BICUBIC, box)
        return View(canvas, _normalised(square, config.vlm_mean, config.vlm_std)[None], valid, image.size)


def _middle(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest square about a photo's centre: (left, top, right, bottom)."""
    side = min(size)
    left, top = ((length - side) / 2 for length in size)
    return left, top, left + side, top + side


def _normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (mean, std))
    return (pixels - mean) / std


def _as_sentence(text: str) -> str:
    """A description as it stands in a prompt: closed, followed by a space; nothing where there is none."""
    if not text:
        return ""
    return f"{text} " if text[-1] in ".!?" else f"{text}. "


AutoProcessor.register(DSVLFSConfig, DSVLFSProcessor, exist_ok=True)
