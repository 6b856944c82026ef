"""What is trained, as the module that Accelerate prepares: a batch of episodes to its losses."""

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from ..configuration import DSVLFSConfig
from ..errors import InputError
from ..files import checked
from ..hub.checkpoint_files import read_config
from ..hub.config_schema import Settings
from ..modeling import DSVLFSModel
from ..parts.semantic_encoder import Question
from .feature_cache import PIXELS
from .live_images import with_image_layers
from .names_extension import NamesFit
from .photo_episodes import PhotoBatch
from .sampling import TrainingBatch
from .settings import TrainingConfig


def build_model(config: TrainingConfig, accelerator: Accelerator, start: Path | None = None) -> DSVLFSModel:
    """The model with its bases, in the precision that it is trained in: what is trained in full, and under bf16 the
    frozen matrices in bf16.

    Args:
        start: folder of a checkpoint whose weights and settings are the model's; those under `model` in the run's are
            not read then. Where `learns_shots`, its attention
            over the shots learns; elsewhere that is kept as it is, and what was fitted to its probabilities is dropped.

    Raises:
        InputError: a setting of the model cannot be; the checkpoint is missing, damaged, of another size or without
            what is to learn, or there is none where `learns_shots`.
        BaseNotAvailableError: a base cannot be had.
    """
    if (config.learns_shots or config.learns_photo) and start is None:
        what = "The attention over the shots" if config.learns_shots else "What the photo adds to the prompt"
        raise InputError(f"{what} is trained on top of a checkpoint; name it with --start-from.")
    settings = getattr(DSVLFSConfig, config.size)()
    if start is None:
        if unknown := sorted(config.model.keys() - settings.to_dict().keys()):
            raise InputError(f"The model has no setting {unknown[0]}; take it out of 'model'.")
        checked(config.model, Settings, "The setting 'model'")
        settings.update(config.model)
    if start is not None:
        needs_neck = bool(settings.embedding_layers)
        settings = read_config(start)
        if bool(settings.embedding_layers) != needs_neck:
            raise InputError(f"The checkpoint {start} is not of the size {config.size}; name another, or its size.")
        if config.learns_image and settings.remembered_classes:
            raise InputError(
                f"The checkpoint {start} remembers classes by what its image encoder sees, which learns_image would "
                "change; start from one that remembers none."
            )
        if not config.learns_shots and not config.extend_names:
            settings.calibration, settings.min_presence = None, 0.0
    with accelerator.local_main_process_first():  # fetches and converts bases, once
        model = DSVLFSModel(settings)
    if start is not None:
        model.load_trained(start / "model.safetensors")
    if config.learns_shots and model.shot_attention is None:
        model.add_shot_attention()
    elif model.shot_attention is not None:
        model.shot_attention.requires_grad_(config.learns_shots)
    if not config.learns_image:
        model.image_encoder.merge()
    elif model.image_encoder.adapter is None:
        raise InputError(
            "learns_image trains LoRA on the image encoder; give the model an image_lora_rank above 0."
            if start is None
            else f"The checkpoint {start} has no LoRA on its image encoder for learns_image to train; start from one "
            "that has, or from the bases."
        )
    set_precision(model, _precision(accelerator))
    if config.gradient_checkpointing:
        language_model = model.semantic_encoder.llava.model.language_model
        language_model.activation_checkpointing_enable({"use_reentrant": False})
    return model


def _precision(accelerator: Accelerator) -> str:
    """Of the products. Under DeepSpeed accelerate knows of DeepSpeed's own precision alone, which is not used."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return "bf16" if "torch_autocast" in accelerator.state.deepspeed_plugin.deepspeed_config else "no"
    return accelerator.mixed_precision


def set_precision(model: DSVLFSModel, mixed_precision: str) -> None:
    """Casts in place: to float32 all but, with "bf16", the bases' frozen matrices, which become bfloat16."""
    bases = {*model.image_encoder.backbone.parameters(), *model.semantic_encoder.vlm.parameters()}
    for parameter in model.parameters():
        half = mixed_precision == "bf16" and parameter in bases and not parameter.requires_grad and parameter.ndim > 1
        parameter.data = parameter.data.to(torch.bfloat16 if half else torch.float32)


class EpisodeLosses(nn.Module):
    """The losses of a batch of episodes.

    Args:
        model: in training mode, or in evaluation mode to measure.
        alignment: for `text_only` batches.
    """

    def __init__(self, model: DSVLFSModel, alignment: NamesFit | None = None) -> None:
        super().__init__()
        self.model = model
        self.alignment = alignment

    def forward(
        self, batch: TrainingBatch | PhotoBatch, *, text_only: bool = False, text_factor: float = 1.0
    ) -> dict[str, Tensor]:
        """Computes a batch.

        Args:
            batch: on the model's device; of photos, the frozen features are computed here.
            text_only: the class is read without the photo, by a language model that is not adapted yet; the semantic
                prompts are those that the alignment holds out.
            text_factor: of `DSVLFSModel.forward`.

        Returns:
            `loss`, with a gradient; `text_loss`, `bce_loss`, `dice_loss`, `fit_loss`; and `logits` (batch, side, side).
        """
        model = self.model
        if isinstance(batch, PhotoBatch):
            batch = self._encode(batch)
        elif PIXELS in batch.features:
            batch = with_image_layers(model, batch)
        question = prompt = None
        if batch.names and text_only:
            prompt = self.alignment.held_out_prompts(batch.names).to(batch.target.device)
            if model.semantic_encoder.photo_prompt is not None:
                asked = self._question(batch.names).to(batch.target.device)
                prompt = prompt + model.semantic_encoder.photo_share(
                    batch.features["tokens"][batch.use_semantic], asked
                )
        elif batch.names:
            question = self._question(batch.names).to(batch.target.device)
        output = model(
            batch.features,
            batch.support_layers,
            batch.support_mask,
            question,
            batch.target,
            use_semantic=batch.use_semantic,
            use_visual=batch.use_visual,
            semantic_prompt=prompt,
            counted=batch.counted,
            text_factor=text_factor,
            fit=batch.fit,
        )
        return vars(output) | {"logits": output.logits.detach()}

    def _question(self, names: list[tuple[str, str | None]]) -> Question:
        """In training each by one of the config's templates, drawn from the generator that dropout is drawn from."""
        processor = self.model.processor
        count = len(processor.templates)
        variants = torch.randint(count, (len(names),)).tolist() if self.training and count > 1 else None
        return processor.question(names, variants=variants)

    @torch.no_grad()
    def _encode(self, batch: PhotoBatch) -> TrainingBatch:
        features, support_features = (
            self.model.image_encoder(pixels) | self.model.semantic_encoder.encode_photo(vlm_pixels)
            for pixels, vlm_pixels in (
                (batch.query_pixels, batch.query_vlm_pixels),
                (batch.support_pixels, batch.support_vlm_pixels),
            )
        )
        layers, mask = self.model.support_features(support_features, batch.support_mask)
        return TrainingBatch(
            features=features,
            target=batch.target,
            support_layers=list(layers),
            support_mask=mask,
            names=batch.names,
            use_semantic=batch.use_semantic,
            use_visual=batch.use_visual,
            counted=batch.counted,
        )
