"""What inference needs of a model; the class that composes one lives above."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..configuration import DSVLFSConfig
from ..parts.aggregation import ShotAttention
from ..parts.class_memory import ClassMemory
from ..parts.grounding import SemanticGrounding
from ..parts.image_encoder import ImageEncoder
from ..parts.mask_decoder import EmbeddingNeck, MaskDecoder
from ..parts.matching import DenseMatcher
from ..parts.request_fit import RequestFit
from ..parts.semantic_encoder import Question, SemanticEncoder
from .encoded import Support, View
from .photos import Photo
from .results import Prediction, Segmentation


class Processor(Protocol):
    """Photos, masks and names to tensors, and logits back (`dsvlfs.processing.DSVLFSProcessor`)."""

    def query_view(self, photo: Photo) -> View: ...

    def support_view(self, photo: Photo, mask: Photo) -> tuple[View, Tensor]: ...

    def whole_view(self, photo: Photo, mask: Photo) -> tuple[View, Tensor]: ...

    def question(self, names: Sequence[tuple[str, str | None]]) -> Question: ...

    def prediction(
        self, logits: Tensor, valid: tuple[int, int], size: tuple[int, int], joined: Tensor | None = None
    ) -> Prediction: ...


class Parts(Protocol):
    """The parts of a model, by the names that `dsvlfs.modeling.DSVLFSModel` gives them."""

    config: DSVLFSConfig
    image_encoder: ImageEncoder
    semantic_encoder: SemanticEncoder
    mask_decoder: MaskDecoder
    neck: EmbeddingNeck | None
    grounding: SemanticGrounding | None
    matcher: DenseMatcher
    request_fit: RequestFit | None
    class_memory: ClassMemory | None
    shot_attention: ShotAttention | None

    @property
    def processor(self) -> Processor: ...

    @property
    def device(self) -> torch.device: ...


class Segmenter(Protocol):
    """A whole model, as its users ask it."""

    config: DSVLFSConfig

    def encode_support(self, examples: Sequence[tuple[Photo, Photo]]) -> Support: ...

    def segment(self, images: Photo, class_name: str, **options: Any) -> Segmentation: ...

    def extract_layers(self, photo: Photo) -> list[Tensor]: ...
