"""What is trained where only the attention over several shots learns: the rest of the model is a checkpoint's."""

import torch
from torch import Tensor, nn

from ..modeling import DSVLFSModel
from ..parts.losses import bce_loss, dice_loss
from .alignment import SemanticAlignment
from .sampling import TrainingBatch


class ShotLosses(nn.Module):
    """The losses of a batch of episodes with several supports each.

    Args:
        model: with a `ShotAttention`; everything else is frozen here.
        alignment: of the names of the same feature cache.
    """

    def __init__(self, model: DSVLFSModel, alignment: SemanticAlignment) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        model.shot_attention.requires_grad_(True)
        self.alignment = alignment

    def forward(self, batch: TrainingBatch, *, text_only: bool, text_factor: float = 1.0) -> dict[str, Tensor]:
        """Computes a batch.

        Args:
            batch: on the model's device, with `shots`.
            text_only, text_factor: as every step of a run is told; there is no text loss here, and names are always
                those that the alignment holds out.

        Returns:
            As `EpisodeLosses`.
        """
        model, config = self.model, self.model.config
        with torch.no_grad():
            embedding = model.image_embedding(batch.features)
            size = embedding.shape[-1]
            semantic = model.mask_decoder.no_semantic_prompt.expand(len(batch.target), -1)
            if batch.names:
                prompts = self.alignment.held_out_prompts(batch.names).to(semantic)
                semantic = semantic.masked_scatter(batch.use_semantic[:, None], prompts)
        visual, first = [], 0
        for i, (count, is_named) in enumerate(zip(batch.shots, batch.use_semantic)):
            shown = slice(first, first + count)
            first += count
            features = {name: tensor[i : i + 1] for name, tensor in batch.features.items()}
            layers, masks = [layer[shown] for layer in batch.support_layers], batch.support_mask[shown]
            with torch.no_grad():
                prompts = model.visual_prompt(features, layers, masks, size)
            name = semantic[i : i + 1] if is_named else None
            one = model.attend_shots(prompts, layers, masks, name)
            if model.request_fit is not None:
                query = [features[name] for name in config.correlation_layers]
                one = one + model.request_fit(query, [layer[None] for layer in layers], masks[None], size)
            if name is not None and model.grounding is not None:
                one = one + model.ground(features, name, size)
            visual.append(one)
        details = [batch.features[name] for name in config.detail_layers or []]
        logits = model.mask_decoder(embedding, semantic, torch.cat(visual), details)
        bce = bce_loss(logits, batch.target).mean()
        dice = dice_loss(logits, batch.target).mean()
        return {
            "logits": logits.detach(),
            "loss": config.bce_loss_weight * bce + config.dice_loss_weight * dice,
            "text_loss": bce.new_zeros(()),
            "bce_loss": bce.detach(),
            "dice_loss": dice.detach(),
            "fit_loss": bce.new_zeros(()),
        }
