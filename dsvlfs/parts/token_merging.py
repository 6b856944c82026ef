"""A frozen DINOv2 run on ever fewer tokens: those whose keys are alike become one on the way, and its features are
given to all their positions at the end (ToMe, Bolya et al. 2023, arXiv 2210.09461). Nothing is trained for it."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Dinov2Model
from transformers.models.dinov2.modeling_dinov2 import Dinov2Layer

SHARES = (0.875, 0.766, 0.664, 0.566, 0.469, 0.391, 0.332)
"""Tokens left after the attention of each of the first blocks, of a photo's positions. A few a block lose less than
many at once: one token is merged into one other alone."""


@dataclass(frozen=True)
class _Tokens:
    """Of one photo, without the class token.

    Args:
        states: (tokens, channels).
        sizes: (tokens,), the positions that each stands for.
        places: (positions,), the token that stands for each.
    """

    states: Tensor
    sizes: Tensor
    places: Tensor


def merged_features(backbone: Dinov2Model, pixel_values: Tensor, blocks: Collection[int]) -> dict[int, Tensor]:
    """What the blocks give, of a photo whose tokens are merged between them.

    Args:
        backbone: DINOv2; its weights are read as they are now.
        pixel_values: (1, 3, height, width), normalised.
        blocks: whose output is wanted, from 1.

    Returns:
        (1, class token + positions, channels) of each, as `hidden_states` has them.
    """
    hidden = backbone.embeddings(pixel_values)
    count = hidden.shape[1] - 1
    ones = torch.ones(count, device=hidden.device)
    tokens = _Tokens(hidden[0, 1:], ones, torch.arange(count, device=hidden.device))
    class_token, side = hidden[0, :1], int(count**0.5)
    features = {}
    for number, layer in enumerate(backbone.encoder.layer, start=1):
        attended, keys = _attend(layer, torch.cat([class_token, tokens.states]), tokens.sizes)
        class_token, tokens = attended[:1], replace(tokens, states=attended[1:])
        if number <= len(SHARES):
            tokens = _merge(tokens, keys, max(1, round(count * SHARES[number - 1])), side if number == 1 else None)
        states = torch.cat([class_token, tokens.states])
        states = states + layer.layer_scale2(layer.mlp(layer.norm2(states)))
        class_token, tokens = states[:1], replace(tokens, states=states[1:])
        if number in blocks:
            features[number] = torch.cat([class_token, tokens.states[tokens.places]])[None]
    return features


def _attend(layer: Dinov2Layer, states: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """A block's first half: its states, and each position's key, the mean of the heads'. A token that stands for
    several is attended to as so many."""
    attention = layer.attention
    normed = layer.norm1(states)
    query, key, value = (
        project(normed).unflatten(-1, (attention.num_attention_heads, -1)).transpose(0, 1)[None]
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    several = F.pad(sizes.log(), (1, 0)).to(query.dtype).expand(1, 1, 1, -1)
    looked = F.scaled_dot_product_attention(query, key, value, attn_mask=several, scale=attention.scaling)
    looked = attention.o_proj(looked[0].transpose(0, 1).flatten(1))
    return states + layer.layer_scale1(looked), key[0, :, 1:].mean(dim=0)


def _merge(tokens: _Tokens, keys: Tensor, left: int, side: int | None) -> _Tokens:
    """Merges tokens until so many are left, at most half of them.

    Args:
        tokens: of a photo.
        keys: (tokens, channels).
        left: tokens to keep.
        side: of the square whose positions the tokens are, of which every second one is merged into others, as on a
            chessboard; None takes every second token.
    """
    order = torch.arange(len(keys), device=keys.device)
    odd = (order if side is None else order // side + order % side) % 2 == 1
    movable, fixed = order[odd], order[~odd]
    keys = F.normalize(keys.float(), dim=-1)
    likeness, nearest = (keys[movable] @ keys[fixed].T).max(dim=1)
    ranks = likeness.argsort(descending=True)
    moved = min(len(keys) - left, len(movable))
    gone, stay = ranks[:moved], ranks[moved:]
    weighed = tokens.states * tokens.sizes[:, None]
    states = weighed[fixed].index_add(0, nearest[gone], weighed[movable[gone]])
    sizes = tokens.sizes[fixed].index_add(0, nearest[gone], tokens.sizes[movable[gone]])
    become = torch.empty_like(order)
    become[movable[stay]] = torch.arange(len(stay), device=keys.device)
    become[fixed] = torch.arange(len(fixed), device=keys.device) + len(stay)
    become[movable[gone]] = nearest[gone] + len(stay)
    return _Tokens(
        states=torch.cat([tokens.states[movable[stay]], (states / sizes[:, None]).to(tokens.states.dtype)]),
        sizes=torch.cat([tokens.sizes[movable[stay]], sizes]),
        places=become[tokens.places],
    )
