"""`DSVLFSModel`: the parts wired together, and the ways in and out of it."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from huggingface_hub import HfApi
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from .configuration import DSVLFSConfig
from .errors import InputError
from .hub.assembly import layer_channels, load_image_base, load_llava
from .hub.checkpoint_files import checkpoint_folder, read_config, read_tensors, write_tensors
from .hub.model_card import new_card
from .inference.encoded import Asked, Query, Shots, Support
from .inference.photos import Photo
from .inference.presence import support_fit
from .inference.results import Prediction, Segmentation
from .parts.aggregation import AGGREGATIONS, Aggregation, ShotAttention, support_evidence
from .parts.grounding import SemanticGrounding
from .parts.image_encoder import ImageEncoder
from .parts.losses import bce_loss, dice_loss
from .parts.mask_decoder import EmbeddingNeck, MaskDecoder
from .parts.matching import DenseMatcher, Match
from .parts.semantic_encoder import Question, SemanticEncoder
from .processing import DSVLFSProcessor, View

Mode = Literal["both", "semantic", "visual"]
MODES: tuple[Mode, ...] = ("both", "semantic", "visual")
SINGLY_ON = ("cpu",)
"""Devices that one photo keeps busy: there several go through the encoders one by one, for together they take more
memory and a quarter more time."""


@dataclass(frozen=True)
class TrainingOutput:
    """Logits (batch, height, width) and losses: their weighted sum, and each alone, averaged over the batch."""

    logits: Tensor
    loss: Tensor
    text_loss: Tensor
    bce_loss: Tensor
    dice_loss: Tensor


class DSVLFSModel(nn.Module):
    """Few-shot segmentation by a semantic and a visual prompt (DSV-LFS, arXiv 2503.04006).

    Args:
        config: of either size.
        load_bases: load the frozen bases; without, every weight is random (shapes and costs only).
        image_options, vlm_options: of transformers' `from_pretrained` of the image encoder and of the LLaVA, such as
            `dtype`, `device_map`, `attn_implementation` or (for the LLaVA) `quantization_config`. What is trained stays
            in float32, but for LLaVA's token embeddings and LM head.

    Raises:
        BaseNotAvailableError: a base cannot be had.
    """

    def __init__(
        self,
        config: DSVLFSConfig,
        *,
        load_bases: bool = True,
        image_options: Mapping[str, Any] | None = None,
        vlm_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.card: str | None = None
        self.processor = DSVLFSProcessor.from_config(config) if load_bases else None
        blocks = sorted({int(n.split(".")[1]) for n in config.frozen_layers if n.startswith("image.")})
        stages = sorted({int(n.split(".")[1]) for n in config.frozen_layers if n.startswith("vision.")})
        self.mask_decoder = MaskDecoder(dim=config.prompt_dim, multimask_outputs=config.decoder_multimask_outputs)
        backbone = load_image_base(config, self.mask_decoder, image_options or {}) if load_bases else None
        self.image_encoder = ImageEncoder(
            backbone=backbone or AutoModel.from_config(config.image_encoder_config()), blocks=blocks
        )
        llava, semantic_token_id = load_llava(config, self.processor, vlm_options or {})
        self.semantic_encoder = SemanticEncoder(
            llava=llava,
            semantic_token_id=semantic_token_id,
            stages=stages,
            lora_rank=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            train_token_embeddings=config.train_token_embeddings,
            train_projector=config.train_vlm_projector,
            standardise_state=config.standardise_state,
            prompt_dim=config.prompt_dim,
        )
        self.neck = None
        if config.embedding_layers:
            self.neck = EmbeddingNeck(
                inputs=sum(layer_channels(config, name) for name in config.embedding_layers),
                outputs=config.prompt_dim,
            )
        self.grounding = None
        if config.grounding_layers:
            self.grounding = SemanticGrounding(
                channels=[layer_channels(config, name) for name in config.grounding_layers],
                prompt_dim=config.prompt_dim,
            )
        self.matcher = DenseMatcher(
            layers=len(config.correlation_layers),
            channels=config.match_channels,
            prompt_dim=config.prompt_dim,
            background=config.match_background,
            priors=config.match_priors,
        )
        self.shot_attention: ShotAttention | None = None
        if config.shot_aggregation == "attention":
            self.add_shot_attention()
        self._adapters = frozenset(
            name
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and name.startswith("semantic_encoder.vlm.")
        )

    def add_shot_attention(self) -> None:
        """Gives the model a `ShotAttention` that has learned nothing yet, and makes it what several shots go through
        unless another aggregation is asked for."""
        self.config.shot_aggregation = "attention"
        self.shot_attention = ShotAttention(
            layers=len(self.config.correlation_layers), prompt_dim=self.config.prompt_dim
        ).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.mask_decoder.no_visual_prompt.device

    # Parts of a forward pass -------------------------------------------------------------------------------------

    def frozen_features(self, view: View) -> dict[str, Tensor]:
        """What the frozen encoders make of a view: every layer that some part reads, and the LLaVA's `tokens`.

        Args:
            view: of one photo.

        Returns:
            A tensor a name, with a batch dimension of one; it has no gradient.
        """
        return self._frozen_features(view.image_pixels, view.vlm_pixels)

    def _frozen_features(self, image_pixels: Tensor, vlm_pixels: Tensor) -> dict[str, Tensor]:
        """`frozen_features` of several photos, whose views' pixels are (batch, 3, size, size)."""
        with torch.no_grad():
            image, tower = self.image_encoder.backbone, self.semantic_encoder.vision_tower
            features = self.image_encoder(_as_read_by(image, image_pixels))
            features |= self.semantic_encoder.encode_photo(_as_read_by(tower, vlm_pixels))
            return {name: tensor.to(self.device) for name, tensor in features.items()}

    def support_features(self, features: dict[str, Tensor], mask: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Correlation layers and mask of a support, pooled to the support grid.

        Args:
            features: of the support view, from `frozen_features`.
            mask: (batch, size, size), in [0, 1].

        Returns:
            A tensor (batch, channels, grid, grid) a layer, and the mask (batch, grid, grid).
        """
        layers = [features[name] for name in self.config.correlation_layers]
        grid = self.config.support_grid or layers[0].shape[-1]
        pooled = tuple(F.adaptive_avg_pool2d(layer, grid) for layer in layers)
        return pooled, F.adaptive_avg_pool2d(mask[:, None].to(layers[0].device), grid)[:, 0]

    def image_embedding(self, features: dict[str, Tensor]) -> Tensor:
        """The mask decoder's image embedding (batch, prompt_dim, height, width)."""
        dtype = self.mask_decoder.no_visual_prompt.dtype
        if self.neck is None:
            return features["image.embedding"].to(dtype)
        return self.neck([features[name].to(dtype) for name in self.config.embedding_layers])

    def visual_prompt(self, features: dict[str, Tensor], layers: Sequence[Tensor], mask: Tensor, size: int) -> Tensor:
        """The visual prompt (batch, prompt_dim, size, size) of query features and one support each; the features of a
        single query serve all supports."""
        return self.matcher([features[name] for name in self.config.correlation_layers], layers, mask, size)

    def match(self, features: dict[str, Tensor], layers: Sequence[Tensor], mask: Tensor, size: int) -> Match:
        """What `visual_prompt` is made of; of several supports as one (`Match.joint`) where that is asked for."""
        return self.matcher.match([features[name] for name in self.config.correlation_layers], layers, mask, size)

    def attend_shots(self, prompts: Tensor, layers: Sequence[Tensor], masks: Tensor, semantic: Tensor | None) -> Tensor:
        """The visual prompts of K shots to one, by the learned attention; a single one is left as it is.

        Args:
            prompts: (K, prompt_dim, size, size), of one query.
            layers, masks: of the K supports, as `Support` holds them.
            semantic: (1, prompt_dim) of the class, where the name counts too.

        Returns:
            (1, prompt_dim, size, size).
        """
        if len(prompts) == 1:
            return prompts
        config, fit = self.config, None
        comparable = self.grounding is not None and set(config.grounding_layers) <= set(config.correlation_layers)
        if semantic is not None and comparable:
            named = [layers[config.correlation_layers.index(name)] for name in config.grounding_layers]
            fit = self.grounding.cosine(semantic.expand(len(masks), -1), named, masks.shape[-1])
        return self.shot_attention(prompts, support_evidence(layers, masks, fit))

    def ground(self, features: dict[str, Tensor], semantic: Tensor, size: int) -> Tensor:
        """What semantic prompts (batch, prompt_dim) add to the dense prompt (batch, prompt_dim, size, size)."""
        return self.grounding(semantic, [features[name] for name in self.config.grounding_layers], size)

    def forward(
        self,
        features: dict[str, Tensor],
        support_layers: Sequence[Tensor],
        support_mask: Tensor,
        question: Question | None,
        target: Tensor,
        *,
        use_semantic: Tensor,
        use_visual: Tensor,
        semantic_prompt: Tensor | None = None,
        counted: Tensor | None = None,
        text_factor: float = 1.0,
    ) -> TrainingOutput:
        """A training step's losses, one support a query.

        Args:
            features: of the queries, from `frozen_features`.
            support_layers, support_mask: from `support_features`.
            question: of the samples with `use_semantic`, in their order; None if `semantic_prompt` is given.
            target: (batch, height, width), in [0, 1], at the decoder's resolution.
            use_semantic, use_visual: bool (batch,), which prompt each sample is given.
            semantic_prompt: of the samples with `use_semantic`, computed before.
            counted: (batch, height, width), in [0, 1]: the share of each pixel that the mask losses count; None
                counts all.
            text_factor: what the text loss is multiplied by in the weighted sum. Its mean is over the samples with
                `use_semantic`; where a step's batch is computed in parts, those with more of them weigh more.

        Returns:
            Logits and losses.
        """
        config = self.config
        embedding = self.image_embedding(features)
        semantic = self.mask_decoder.no_semantic_prompt.expand(len(target), -1)
        text_loss = target.new_zeros(())
        if use_semantic.any():
            if semantic_prompt is None:
                semantic_prompt, text_loss = self.semantic_encoder(features["tokens"][use_semantic], question)
            semantic = semantic.masked_scatter(use_semantic[:, None], semantic_prompt.to(semantic.dtype))
        visual = self.mask_decoder.no_visual_prompt[None, :, None, None].expand_as(embedding)
        if use_visual.any():
            matched = self.visual_prompt(
                {name: features[name][use_visual] for name in config.correlation_layers},
                [layer[use_visual] for layer in support_layers],
                support_mask[use_visual],
                embedding.shape[-1],
            )
            visual = visual.masked_scatter(use_visual[:, None, None, None], matched.to(visual.dtype))
        if self.grounding is not None and use_semantic.any():
            queries = {name: features[name][use_semantic] for name in config.grounding_layers}
            grounded = self.ground(queries, semantic[use_semantic], embedding.shape[-1])
            visual = visual.index_add(0, use_semantic.nonzero()[:, 0], grounded.to(visual.dtype))
        logits = self.mask_decoder(embedding, semantic, visual)
        bce, dice = bce_loss(logits, target, counted).mean(), dice_loss(logits, target, counted).mean()
        loss = (
            config.text_loss_weight * text_factor * text_loss
            + config.bce_loss_weight * bce
            + config.dice_loss_weight * dice
        )
        return TrainingOutput(logits, loss, text_loss.detach(), bce.detach(), dice.detach())

    # Inference ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def encode_support(self, examples: Sequence[tuple[Photo, Photo]]) -> Support:
        """Encodes support photos, once for any number of queries.

        Args:
            examples: (photo, mask) pairs, of one class; PIL images, arrays or paths.

        Returns:
            What `segment` takes as its support.

        Raises:
            InputError: there is none, or a photo or mask cannot be used.
        """
        if not examples:
            raise InputError(
                "There is no support; give at least one photo with its mask, or segment with support=None."
            )
        encoded = []
        for photo, mask in examples:
            view, square = self.processor.support_view(photo, mask)
            encoded.append(Support(*self.support_features(self.frozen_features(view), square)))
        return Support.join(encoded)

    @overload
    def encode_query(self, photos: Photo) -> Query: ...

    @overload
    def encode_query(self, photos: Sequence[Photo]) -> list[Query]: ...

    @torch.inference_mode()
    def encode_query(self, photos: Photo | Sequence[Photo]) -> Query | list[Query]:
        """Encodes query photos, each once for any number of classes and supports; nearly all of a query's time.

        Args:
            photos: one photo, or a sequence that goes through the encoders together, but for a CPU's; PIL images,
                arrays or paths.

        Returns:
            What `segment` and `predict` take in a photo's place; a list for a sequence.

        Raises:
            InputError: a photo cannot be used.
        """
        if not isinstance(photos, (list, tuple)):
            return self.encode_query([photos])[0]
        if not photos:
            return []
        views = [self.processor.query_view(photo) for photo in photos]
        if len(views) == 1 or self.image_encoder.backbone.device.type in SINGLY_ON:
            return [Query(self.frozen_features(view), view.valid, view.size) for view in views]
        features = self._frozen_features(
            torch.cat([view.image_pixels for view in views]), torch.cat([view.vlm_pixels for view in views])
        )
        return [
            # A copy each: a slice would keep them all in memory.
            Query({name: tensor[i : i + 1].clone() for name, tensor in features.items()}, view.valid, view.size)
            for i, view in enumerate(views)
        ]

    @overload
    def segment(self, images: Photo | Query, class_name: str, **options: object) -> Segmentation: ...

    @overload
    def segment(self, images: Sequence[Photo | Query], class_name: str, **options: object) -> list[Segmentation]: ...

    @torch.inference_mode()
    def segment(
        self,
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
    ) -> Segmentation | list[Segmentation]:
        """Segments a class in photos.

        Args:
            images: one photo or a sequence of them; PIL images, arrays or paths, of any size, or what `encode_query`
                made of them.
            class_name: what to segment.
            support: from `encode_support`; None asks by name alone, whatever the mode.
            description: what the class looks like; None leaves it to the name.
            mode: which prompts the mask decoder is given.
            threshold: probability from which on a pixel is foreground, or a shot votes for it.
            min_presence: where the presence is lower, the mask is left empty (see `Segmentation.presence`); None takes
                the config's for masks by name and supports, and 0 for others; 0 empties none.
            aggregation: how K shots become one mask (see `dsvlfs.parts.aggregation`); None takes the config's.
            batch_size: how many photos of a sequence go through the encoders together, but for a CPU's.

        Returns:
            One result for one photo, a list for a sequence. With the votes of K shots the probability is the mean over
            the shots, and the mask holds the pixels whose votes reach `config.vote_threshold` of the largest count
            (arXiv 2503.04006, section 3.4).

        Raises:
            InputError: a photo, the name, the mode or the aggregation cannot be used.
        """
        if batch_size < 1:
            raise InputError(f"The batch size is {batch_size}; give 1 or more.")
        many = isinstance(images, (list, tuple))
        photos, results = list(images) if many else [images], []
        for start in range(0, len(photos), batch_size):
            batch = photos[start : start + batch_size]
            if len(batch) > 1:
                encoded = iter(self.encode_query([image for image in batch if not isinstance(image, Query)]))
                batch = [image if isinstance(image, Query) else next(encoded) for image in batch]
            for image in batch:
                found = self.predict(
                    image, class_name, support=support, description=description, modes=[mode], aggregation=aggregation
                )
                results.append(found[mode].segmentation(threshold, min_presence=min_presence))
        return results if many else results[0]

    @torch.inference_mode()
    def predict(
        self,
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
        if unknown := [mode for mode in modes if mode not in MODES]:
            raise InputError(f"There is no mode '{unknown[0]}'; choose one of {', '.join(MODES)}.")
        if support is None and "visual" in modes:
            raise InputError("Mode 'visual' needs a support; give one, or ask with mode 'semantic'.")
        aggregation = self._known(aggregation)
        texts = self._texts(class_name, description)
        query = image if isinstance(image, Query) else self.encode_query(image)
        features = query.features
        by_support = Asked(self.image_embedding(features))
        size = by_support.embedding.shape[-1]
        by_name, shots = by_support, None
        if any(mode != "visual" for mode in modes):
            semantic = sum(
                weight * self.semantic_encoder.prompt(features["tokens"], question) for weight, question in texts
            )
            grounded = self.ground(features, semantic, size) if self.grounding is not None else None
            by_name = Asked(by_support.embedding, semantic, grounded)
        if support is not None and any(mode != "semantic" for mode in modes):
            shots = self.compare(features, support, size)
        predictions = {}
        for mode in modes:
            asked, shown = by_support if mode == "visual" else by_name, None if mode == "semantic" else shots
            logits, joined = self.decode(asked, shown, aggregation)
            found = self.processor.prediction(logits, query.valid, query.size, joined)
            predictions[mode] = self._with_fits(found, query, asked, shown)
        return predictions

    def _with_fits(self, found: Prediction, query: Query, asked: Asked, shots: Shots | None) -> Prediction:
        """A prediction that knows how well what its mask covers fits the name and the supports it was asked by; as it
        is where nothing says how far its probability can be believed."""
        if found.calibration is None:
            return found
        config, features, fits = self.config, query.features, []
        width, height = query.valid
        covered = torch.zeros(1, config.image_size, config.image_size, device=self.device)
        covered[0, :height, :width] = torch.from_numpy(found.calibrated(query.valid))
        if asked.grounded is not None:
            named = [features[name] for name in config.grounding_layers]
            on_grid = F.adaptive_avg_pool2d(covered, asked.grounded.shape[-1])
            look = self.grounding.look(named, on_grid)
            fits.append(float(F.cosine_similarity(look, asked.semantic.to(look))))
        if shots is not None:
            deepest, support = features[config.correlation_layers[-1]], shots.support
            fits.append(support_fit(deepest, covered, support.layers[-1], support.masks))
        limit = config.min_presence if len(fits) == 2 else 0.0  # fewer signs have another scale
        return replace(found, fits=tuple(fits), min_presence=limit)

    def _texts(self, class_name: str, description: str | None) -> list[tuple[float, Question]]:
        """The questions to ask for a class, and the weight of each one's prompt.

        Raises:
            InputError: the name or the description cannot be used.
        """
        weight = self.config.description_weight if isinstance(description, str) and description.strip() else 1.0
        asked = [(weight, description)] + ([(1 - weight, None)] if weight < 1 else [])
        return [(w, self.processor.question([(class_name, text)]).to(self.device)) for w, text in asked]

    def _known(self, aggregation: Aggregation | None) -> Aggregation:
        """The aggregation to use, once it is known that the model has it."""
        aggregation = aggregation or self.config.shot_aggregation
        if aggregation not in AGGREGATIONS:
            raise InputError(f"There is no aggregation '{aggregation}'; choose one of {', '.join(AGGREGATIONS)}.")
        if aggregation == "attention" and self.shot_attention is None:
            raise InputError(
                "This checkpoint has learned no attention over the shots; choose votes, logits or joint, or train it."
            )
        return aggregation

    def extract_layers(self, photo: Photo) -> list[Tensor]:
        """The correlation layers (channels, height, width) of a whole photo, in the config's order."""
        features = self.frozen_features(self.processor.query_view(photo))
        return [features[name][0] for name in self.config.correlation_layers]

    def compare(self, features: dict[str, Tensor], support: Support, size: int) -> Shots:
        """Compares a query's features with each support; visual prompts of `size` positions a side."""
        match = self.match(features, support.layers, support.masks, size)
        return Shots(support, match, self.matcher.prompt(match))

    def decode(
        self, asked: Asked, shots: Shots | None, aggregation: Aggregation, logits: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The mask decoder's answer to a query.

        Args:
            logits: of each shot alone, where they are known.

        Returns:
            Logits (max(K, 1), height, width), one map a shot; and what the shots say together (1, height, width), or
            None where it is their votes, or the one shot's own.
        """
        if logits is None:
            logits = self._decode(asked, None if shots is None else shots.prompts)
        if len(logits) == 1 or aggregation == "votes":
            return logits, None
        if aggregation == "logits":
            return logits, logits.mean(dim=0, keepdim=True)
        if aggregation == "joint":
            one = self.matcher.prompt(shots.match.joint())
        else:
            one = self.attend_shots(shots.prompts, shots.support.layers, shots.support.masks, asked.semantic)
        return logits, self._decode(asked, one)

    def _decode(self, asked: Asked, visual: Tensor | None) -> Tensor:
        """Mask logits (max(V, 1), height, width) of one query, one map for each of V visual prompts."""
        embedding, semantic, dense = asked.embedding, asked.semantic, visual
        if asked.grounded is not None:
            dense = asked.grounded + (self.mask_decoder.no_visual_prompt[:, None, None] if visual is None else visual)
        if visual is not None:
            embedding = embedding.expand(len(visual), -1, -1, -1)
            semantic = semantic if semantic is None else semantic.expand(len(visual), -1)
        return self.mask_decoder(embedding, semantic, dense)

    # Saving and loading ------------------------------------------------------------------------------------------

    def trained_state_dict(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint carries: all but the frozen bases'."""
        frozen = {
            name
            for part, prefix in (
                (self.image_encoder, "image_encoder."),
                (self.semantic_encoder.vlm, "semantic_encoder.vlm."),
            )
            for name in (prefix + n for n in part.state_dict())
        }
        return {
            name: tensor for name, tensor in self.state_dict().items() if name in self._adapters or name not in frozen
        }

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *,
        dtype: torch.dtype | None = None,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """Writes `config.json`, `model.safetensors` with what was trained only, and the model card as `README.md`.

        Args:
            save_directory: made where it is missing.
            dtype: of the tensors in the file; None keeps the model's.
            state_dict: what to write for `trained_state_dict`, gathered from where the model is divided.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        (folder / "README.md").write_text(self.card or new_card(self.config), encoding="utf-8")
        state = {
            name: tensor.detach().to("cpu", dtype) for name, tensor in (state_dict or self.trained_state_dict()).items()
        }
        write_tensors(folder / "model.safetensors", state)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload model",
    ) -> str:
        """Sends what `save_pretrained` writes to a model repository of the Hugging Face hub, made where it is missing.

        Args:
            repo_id: "user/name".
            private: of a new repository.
            token: None takes that of the machine's login.

        Returns:
            The commit's address.
        """
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message).commit_url

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike = "dsvlfs-tiny", *, revision: str | None = None, **options: Any
    ) -> "DSVLFSModel":
        """Loads a checkpoint and its bases, for inference.

        Args:
            name_or_path: "dsvlfs-tiny" (comes with the package), a folder, or a model id of the Hugging Face hub.
            revision: of the model on the hub.
            options: `image_options` and `vlm_options`, as the class takes them.

        Raises:
            InputError: there is no such checkpoint, or it is damaged.
            BaseNotAvailableError: one of its bases cannot be had.
        """
        folder = checkpoint_folder(name_or_path, revision)
        config = read_config(folder)
        file = folder / "model.safetensors"
        state = read_tensors(file)  # before the bases, which take longer
        model = cls(config, **options)
        model._adopt(state, file)
        card = folder / "README.md"
        model.card = card.read_text(encoding="utf-8") if card.is_file() else None
        return model.eval()

    def load_trained(self, file: Path) -> None:
        """Loads the tensors of `trained_state_dict` from a safetensors file.

        Raises:
            InputError: the file is missing, damaged, or of another configuration.
        """
        self._adopt(read_tensors(file), file)

    def _adopt(self, state: dict[str, Tensor], file: Path) -> None:
        own = self.trained_state_dict()
        wrong = sorted(own.keys() ^ state.keys()) or sorted(n for n in own if own[n].shape != state[n].shape)
        if wrong:
            raise InputError(
                f"The checkpoint {file} does not fit its config.json ({len(wrong)} tensors, first {wrong[0]}); get "
                "both from the same place."
            )
        self.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in state.items()}, strict=False)


def _as_read_by(base: PreTrainedModel, pixels: Tensor) -> Tensor:
    """Pixels in a base's precision and where it is; what is offloaded fetches them itself."""
    return pixels.to(pixels.device if base.device.type == "meta" else base.device, base.dtype)
