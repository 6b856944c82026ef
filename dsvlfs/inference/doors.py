"""The doors to inference, as the methods that a model has."""

from collections.abc import Sequence
from typing import TypedDict, Unpack, overload

from torch import Tensor

from ..parts.aggregation import Aggregation
from ..parts.matching import Match
from . import decoding, encoding, segmenting
from .checks import MODES, Mode
from .encoded import Asked, Query, Shots, Support, View
from .interface import Parts
from .photos import Photo
from .results import Prediction, Segmentation


class SegmentOptions(TypedDict, total=False):
    """Keywords of `InferenceMixin.segment`."""

    support: Support | None
    description: str | None
    mode: Mode
    threshold: float
    min_presence: float | None
    aggregation: Aggregation | None
    batch_size: int
    zoom: bool | None


class InferenceMixin:
    """What a model that has the parts is asked: whole questions first, their steps below."""

    def encode_support(self: Parts, examples: Sequence[tuple[Photo, Photo]]) -> Support:
        """Encodes support photos, once for any number of queries.

        Args:
            examples: (photo, mask) pairs, of one class; PIL images, arrays or paths.

        Returns:
            What `segment` takes as its support.

        Raises:
            InputError: there is none, or a photo or mask cannot be used.
        """
        return encoding.encode_support(self, examples)

    def encoder_digest(self: Parts) -> str:
        """SHA-256 of all that an encoded support depends on beside its photo and mask: the weights of the
        encoders, with LoRA that is not merged into them, and how supports are seen. `Support.load` knows a model by it.

        Raises:
            InputError: weights are offloaded.
        """
        return encoding.kept_with(self)

    @overload
    def encode_query(self: Parts, photos: Photo) -> Query: ...

    @overload
    def encode_query(self: Parts, photos: Sequence[Photo]) -> list[Query]: ...

    def encode_query(self: Parts, photos: Photo | Sequence[Photo]) -> Query | list[Query]:
        """Encodes query photos, each once for any number of classes and supports; nearly all of a query's time.

        Args:
            photos: one photo, or a sequence that goes through the encoders together, but for a CPU's; PIL images,
                arrays or paths.

        Returns:
            What `segment` and `predict` take in a photo's place; a list for a sequence.

        Raises:
            InputError: a photo cannot be used.
        """
        queries = encoding.encode_queries(self, photos if isinstance(photos, (list, tuple)) else [photos])
        return queries if isinstance(photos, (list, tuple)) else queries[0]

    @overload
    def segment(
        self: Parts, images: Photo | Query, class_name: str, **options: Unpack[SegmentOptions]
    ) -> Segmentation: ...

    @overload
    def segment(
        self: Parts, images: Sequence[Photo | Query], class_name: str, **options: Unpack[SegmentOptions]
    ) -> list[Segmentation]: ...

    def segment(
        self: Parts,
        images: Photo | Query | Sequence[Photo | Query],
        class_name: str,
        *,
        support: Support | None = None,
        description: str | None = None,
        mode: Mode = "both",
        threshold: float = 0.5,
        min_presence: float | None = None,
        aggregation: Aggregation | None = None,
        batch_size: int = 1,
        zoom: bool | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Segments a class in photos.

        Args:
            images: one photo or a sequence of them; PIL images, arrays or paths, of any size, or what `encode_query`
                made of them.
            class_name: what to segment.
            support: from `encode_support`; None asks by name alone, whatever the mode.
            description: what the class looks like; None leaves it to the name. It stands in the name's place where the
                language model does not know that (`unknown_word` of the config).
            mode: which prompts the mask decoder is given.
            threshold: probability from which on a pixel is foreground, or a shot votes for it.
            min_presence: where the presence is lower, the mask is left empty (see `Segmentation.presence`); None takes
                the config's for masks by name and supports, and 0 for others; 0 empties none.
            aggregation: how K shots become one mask (see `dsvlfs.parts.aggregation`); None takes the config's.
            batch_size: how many photos of a sequence go through the encoders together, but for a CPU's.
            zoom: look again, closer, at what is found small in a photo (`dsvlfs.inference.zoom`), which takes twice the
                time of such a photo; None does so where `images` are the photos themselves.

        Returns:
            One result for one photo, a list for a sequence. With the votes of K shots the probability is the mean over
            the shots, and the mask holds the pixels whose votes reach `config.vote_threshold` of the largest count
            (arXiv 2503.04006, section 3.4).

        Raises:
            InputError: a photo, the name, the mode or the aggregation cannot be used.
        """
        many = isinstance(images, (list, tuple))
        results = segmenting.segment(
            self,
            images if many else [images],
            class_name,
            support=support,
            description=description,
            mode=mode,
            threshold=threshold,
            min_presence=min_presence,
            aggregation=aggregation,
            batch_size=batch_size,
            zoom=zoom,
        )
        return results if many else results[0]

    def predict(
        self: Parts,
        image: Photo | Query,
        class_name: str,
        *,
        support: Support | None = None,
        description: str | None = None,
        modes: Sequence[Mode] = MODES,
        aggregation: Aggregation | None = None,
    ) -> dict[Mode, Prediction]:
        """Decodes one photo under several modes; the encoders and the prompts are computed once for all of them.

        Args:
            image: PIL image, array or path, or what `encode_query` made of it.
            class_name, support, description: as for `segment`.
            modes: which prompts the mask decoder is given, each time.
            aggregation: as for `segment`.

        Returns:
            What each mode predicts, before a threshold.

        Raises:
            InputError: the photo, the name, a mode or the aggregation cannot be used.
        """
        return segmenting.predict(
            self,
            image,
            class_name,
            support=support,
            description=description,
            modes=modes,
            aggregation=aggregation,
        )

    def extract_layers(self: Parts, photo: Photo) -> list[Tensor]:
        """The correlation layers (channels, height, width) of a whole photo, in the config's order."""
        return encoding.extract_layers(self, photo)

    def compare(self: Parts, features: dict[str, Tensor], support: Support, size: int) -> Shots:
        """Compares a query's features with each support; visual prompts of `size` positions a side."""
        return decoding.compare(self, features, support, size)

    def decode(
        self: Parts, asked: Asked, shots: Shots | None, aggregation: Aggregation, logits: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`dsvlfs.inference.decoding.decode`."""
        return decoding.decode(self, asked, shots, aggregation, logits)

    def frozen_features(self: Parts, view: View) -> dict[str, Tensor]:
        """`dsvlfs.inference.encoding.frozen_features`."""
        return encoding.frozen_features(self, view)

    def support_features(self: Parts, features: dict[str, Tensor], mask: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """`dsvlfs.inference.encoding.support_features`."""
        return encoding.support_features(self, features, mask)

    def image_embedding(self: Parts, features: dict[str, Tensor]) -> Tensor:
        """The mask decoder's image embedding (batch, prompt_dim, height, width)."""
        return decoding.image_embedding(self, features)

    def visual_prompt(
        self: Parts, features: dict[str, Tensor], layers: Sequence[Tensor], mask: Tensor, size: int
    ) -> Tensor:
        """The visual prompt (batch, prompt_dim, size, size) of query features and one support each; the features of a
        single query serve all supports."""
        return self.matcher([features[name] for name in self.config.correlation_layers], layers, mask, size)

    def match(self: Parts, features: dict[str, Tensor], layers: Sequence[Tensor], mask: Tensor, size: int) -> Match:
        """What `visual_prompt` is made of; of several supports as one (`Match.joint`) where that is asked for."""
        return decoding.match(self, features, layers, mask, size)

    def attend_shots(
        self: Parts, prompts: Tensor, layers: Sequence[Tensor], masks: Tensor, semantic: Tensor | None
    ) -> Tensor:
        """`dsvlfs.inference.decoding.attend_shots`."""
        return decoding.attend_shots(self, prompts, layers, masks, semantic)

    def ground(self: Parts, features: dict[str, Tensor], semantic: Tensor, size: int) -> Tensor:
        """What semantic prompts (batch, prompt_dim) add to the dense prompt (batch, prompt_dim, size, size)."""
        return decoding.ground(self, features, semantic, size)
