"""Is the name believed? The supports are looked at, the name is only heard.

A semantic prompt and what the supports show lie in one space (`SemanticGrounding`). A name that the language model does
not know, or another thing's, points elsewhere than they do; such a name costs more than it says (docs/experiments.md).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..configuration import DSVLFSConfig
from ..parts.grounding import SemanticGrounding


def named_layers(config: DSVLFSConfig, layers: Sequence[Tensor]) -> list[Tensor]:
    """Of a support's correlation layers those that names are compared with, in the grounding's order."""
    return [layers[config.correlation_layers.index(name)] for name in config.grounding_layers]


def name_fits(grounding: SemanticGrounding, semantic: Tensor, layers: Sequence[Tensor], masks: Tensor) -> Tensor:
    """How well a name fits what the supports show: the mean over these of the cosine, ().

    Args:
        grounding: the space that both share.
        semantic: (1, prompt_dim) of the name.
        layers: (K, channels, height, width) of each grounding layer, of the supports.
        masks: (K, height, width), foreground in [0, 1].
    """
    looks = grounding.look(layers, masks)
    return F.cosine_similarity(looks, semantic.to(looks)).mean()


def name_fit(grounding: SemanticGrounding, semantic: Tensor, layers: Sequence[Tensor], masks: Tensor) -> float:
    """`name_fits` as a number."""
    return float(name_fits(grounding, semantic, layers, masks))
