"""A query's way in four graphs, each with plain tensors in and out: what is exported to other engines."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..inference.decoding import image_embedding
from ..inference.encoded import View
from ..inference.encoding import frozen_features, support_features
from ..inference.name_trust import name_fits, named_layers
from ..modeling import DSVLFSModel
from ..parts.request_fit import unit_positions
from ..parts.whole_fit import fit_whole, pooled_whole


class _Graph(nn.Module):
    """A module of some of a model's steps; the model is no child of it, so that nothing is moved or renamed."""

    def __init__(self, model: DSVLFSModel) -> None:
        super().__init__()
        self.model = model

    @property
    def kept(self) -> list[str]:
        """The layers of a query that the later graphs read."""
        config = self.model.config
        wanted = [*config.correlation_layers, *(config.grounding_layers or []), *(config.detail_layers or [])]
        return list(dict.fromkeys(wanted))


class QueryGraph(_Graph):
    """All that a query photo costs by itself: both encoders, and the decoder's embedding."""

    def forward(self, image_pixels: Tensor, vlm_pixels: Tensor) -> tuple[Tensor, ...]:
        """Encodes.

        Args:
            image_pixels: (1, 3, side, side), normalised for the image encoder.
            vlm_pixels: (1, 3, side, side), normalised for the vision tower.

        Returns:
            The embedding (1, prompt_dim, height, width), and each layer of `kept`.
        """
        features = frozen_features(self.model, _view(image_pixels, vlm_pixels))
        return image_embedding(self.model, features), *(features[name] for name in self.kept)


class SupportGraph(_Graph):
    """All that a support photo costs by itself."""

    def forward(
        self, image_pixels: Tensor, vlm_pixels: Tensor, mask: Tensor, whole: Sequence[Tensor] = ()
    ) -> tuple[Tensor, ...]:
        """Encodes.

        Args:
            image_pixels, vlm_pixels: as of a query, at a support's sides, around the mask.
            mask: (1, side, side) on the square of `image_pixels`, in [0, 1].
            whole: the same three of the whole photo, at a query's sides; where the model reads it.

        Returns:
            The mask (1, grid, grid), and each correlation layer (1, channels, grid, grid); then the mask of the whole
            photo and its layers, where it is read.
        """
        features = frozen_features(self.model, _view(image_pixels, vlm_pixels))
        layers, pooled = support_features(self.model, features, mask)
        if not whole:
            return pooled, *layers
        features = frozen_features(self.model, _view(whole[0], whole[1]))
        kept, shown = pooled_whole([features[name] for name in self.model.config.correlation_layers], whole[2])
        return pooled, *layers, shown, *kept


class MatcherGraph(_Graph):
    """A query and K supports, side by side, to what the decoder is told by them."""

    def forward(
        self,
        semantic_prompt: Tensor,
        query: Sequence[Tensor],
        support: Sequence[Tensor],
        masks: Tensor,
        whole: Sequence[Tensor] = (),
        whole_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Matches.

        Args:
            semantic_prompt: (1, prompt_dim) of the class's name; nought where it has none.
            query: (1, channels, height, width) of each correlation layer.
            support: (K, channels, grid, grid) of each.
            masks: (K, grid, grid), in [0, 1].
            whole, whole_masks: likewise of the whole photos, where the model reads them.

        Returns:
            The visual prompt (1, prompt_dim, size, size); what is added to the mask's logits (1, size, size); and how
            well the name fits the supports (1,).
        """
        model, config = self.model, self.model.config
        size = query[0].shape[-1]
        fit = semantic_prompt[:, 0] * 0 + 1
        if config.name_trust is not None or config.name_doubt is not None:
            fit = name_fits(model.grounding, semantic_prompt, named_layers(config, support), masks)[None]
        match = model.matcher.match(query, support, masks, size)
        visual = model.matcher.prompt(match.joint())
        added = visual[:, 0] * 0
        if model.request_fit is not None:
            score = model.request_fit.score(query, [layer[None] for layer in support], masks[None], size)
            visual = visual + model.request_fit.prompt(score)
            if model.request_fit.share:
                added = score * model.request_fit.weight(support, masks)
            if whole_masks is not None:
                single = torch.ones_like(masks[:, 0, 0]).sum() == 1  # `len` is fixed in an export
                doubted = (
                    (fit < (-2 if config.name_doubt is None else config.name_doubt)) & semantic_prompt.any() & single
                )
                limit = torch.where(doubted, config.doubted_likeness, config.whole_likeness)
                told, places = fit_whole(whole, whole_masks), unit_positions(query, size)
                alike = told.likeness(places) >= limit
                added = added + config.whole_weight * alike * told.score(places).unflatten(1, (size, size))
        return visual, added, fit


class DecoderGraph(_Graph):
    """What a query is asked by, to the mask's logits."""

    def forward(
        self,
        embedding: Tensor,
        layers: Sequence[Tensor],
        visual: Tensor,
        added: Tensor,
        semantic: Tensor,
        heard: Tensor,
    ) -> Tensor:
        """Decodes.

        Args:
            embedding, layers: of the query, as its graph gives them.
            visual, added: from the matcher.
            semantic: (1, prompt_dim) of the class's name; anything where it is not heard.
            heard: (1,), 1 where the name is heard and 0 where the supports alone decide.

        Returns:
            Logits (1, 4 height, 4 width) on the square that the query was seen on.
        """
        model, config = self.model, self.model.config
        features = dict(zip(self.kept, layers, strict=True))
        if model.grounding is not None:
            named = [features[name] for name in config.grounding_layers]
            visual = visual + heard * model.grounding(semantic, named, embedding.shape[-1])
        prompt = torch.where(heard[:, None] > 0, semantic, model.mask_decoder.no_semantic_prompt)
        logits = model.mask_decoder(embedding, prompt, visual, [features[n] for n in config.detail_layers or []])
        if added.shape != logits.shape:
            added = nn.functional.interpolate(added[:, None], logits.shape[-2:], mode="bilinear", align_corners=False)
            added = added[:, 0]
        return logits + added + config.logit_offset


def _view(image_pixels: Tensor, vlm_pixels: Tensor) -> View:
    side = image_pixels.shape[-1]
    return View(image_pixels, vlm_pixels, (side, side), (side, side))
