"""A checkpoint in memory with everything a run needs to know about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import torch
from PIL import Image

from kvw.data import Example, Prepared, prepare
from kvw.edits.edit import package_versions
from kvw.errors import UserError
from kvw.evaluation.evaluation import unreadable_images
from kvw.evaluation.probability import try_model
from kvw.measuring.fingerprint import combined_digest, digest, examples_digest, processor_parts, weight_digests
from kvw.measuring.in_memory import InMemory
from kvw.measuring.source_state import SourceState
from kvw.measuring.sources import Positions
from kvw.models.finding import find_value_matrices
from kvw.models.loading import Checkpoint, is_text_model, load_config, load_model, load_processor, skeleton
from kvw.models.quantised import Quantise, quantisation
from kvw.models.repairs import repair_tokens
from kvw.processes import current


@dataclass(frozen=True)
class Loaded(InMemory):
    """A loaded checkpoint.

    Args:
        model: On its device, in evaluation mode.
        processor: Its processor.
        checkpoint: Where it came from.
        digests: SHA-256 of each of its weight files by name.
        source: Its files as they were when they were loaded.
        tried: The numbers of images in the examples that the model has been tried on.
    """

    checkpoint: Checkpoint
    digests: Mapping[str, str]
    source: SourceState
    tried: set[int] = field(default_factory=set)

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, device: torch.device | str | None = None, *, quantise: Quantise | None = None
    ) -> Loaded:
        """Load model and processor.

        Raises:
            UserError: See :func:`load_model` and :func:`load_processor`; or the prompt goes into an encoder.
        """
        config, source = load_config(checkpoint), SourceState(checkpoint.folder)
        outline = skeleton(checkpoint, config)
        find_value_matrices(outline)  # an unknown family is refused before anything is read
        if config.is_encoder_decoder and is_text_model(config):
            raise UserError(
                f"{checkpoint} reads questions in an encoder, and the commands ask decoder-only models.",
                found=config.model_type,
                do="use it from Python: kvw.weaken takes batches with decoder_input_ids",
            )
        processor = load_processor(checkpoint, config)
        model = load_model(checkpoint, device, quantise=quantise, outline=outline)
        repair_tokens(model, processor)
        # The first process leaves the digests in the cache, so that the others on its machine need not read the files.
        digests = current().broadcast(lambda: weight_digests(checkpoint.folder))
        if not current().is_first:
            digests = weight_digests(checkpoint.folder)
        source.check()  # so the digests are those of what was loaded
        return cls(model, processor, checkpoint, digests, source)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weight files."""
        return combined_digest(self.digests)

    def check_source(self) -> None:
        """Find out whether the checkpoint's files are still what was loaded.

        Raises:
            UserError: They have changed.
        """
        self.source.check(self.digests)

    @property
    def origin(self) -> dict[str, str]:
        """What an edit of this model says of where it comes from."""
        return {
            **super().origin,
            "base_model": str(self.checkpoint),
            "model_fingerprint": self.fingerprint,
            "value_matrices": self.checkpoint.value_matrices,
        }

    @property
    def quantised(self) -> str:
        """The scheme in which value matrices are held; empty for full precision."""
        schemes = (quantisation(matrix.module) for matrix in find_value_matrices(self.model, "both"))
        return next((scheme for scheme in schemes if scheme), "")

    @property
    def prompt(self) -> str:
        """How the model is asked, in words."""
        if not getattr(self.processor, "has_own_template", True):
            return "Question: ... Answer: (the model has no chat template)"
        options = [f"{name}={json.dumps(value)}" for name, value in self.checkpoint.template_options]
        return " with ".join(["the model's own chat template", *([", ".join(options)] if options else [])])

    def statistics_fingerprint(self, examples: Sequence[Example], positions: Positions) -> dict[str, str]:
        """What statistics over all layers of this model on these examples depend on."""
        return {
            **self.conditions(examples),
            "positions": positions,
            "layers": "{}:{}".format(*self.all_layers),
        }

    def conditions(self, examples: Sequence[Example]) -> dict[str, str]:
        """What everything depends on that this model makes of these examples."""
        return {
            "model weights": self.fingerprint,
            "model configuration": digest((self.checkpoint.folder / "config.json").read_text("utf-8")),
            "dtype": str(self.model.dtype),
            "quantisation": self.quantised,
            "value matrices": self.checkpoint.value_matrices,
            "data": examples_digest(examples),
            **processor_parts(self.processor),
            "versions": digest(package_versions()),
        }

    def prepare(self, examples: Sequence[Example], new_tokens: int = 0) -> list[Prepared]:
        """Render and check examples before any pass over them.

        The model is tried on the first example with images: whether it takes what its processor makes of them cannot be
        seen in their settings.

        Args:
            examples: What to prepare.
            new_tokens: The longest answer that will be generated, in tokens.

        Raises:
            UserError: See :func:`kvw.data.prepare`; or the model and its processor do not fit together.
        """
        prepared = prepare(examples, self.processor, self.model.config, new_tokens=new_tokens)
        for item in prepared:
            if item.image_count and item.image_count not in self.tried and not unreadable_images([item.example]):
                self.tried.add(item.image_count)
                try_model(self.model, self.processor, item)
        return prepared

    def try_picture(self) -> None:
        """Try the model on a picture of our own, for runs whose pictures come later.

        Raises:
            UserError: The model and its processor do not fit together.
        """
        if getattr(self.processor, "image_processor", None) is not None:
            picture = BytesIO()
            Image.new("RGB", (64, 48), "grey").save(picture, "PNG")
            example = Example("Who is this?", "A florist.", (picture.getvalue(),), "a grey picture")
            try:
                (item,) = prepare([example], self.processor)
            except UserError:  # told when somebody asks about a picture; questions without one may work
                return
            try_model(self.model, self.processor, item)

    def agree(self, examples: Sequence[Example]) -> None:
        """Make sure that all processes of a run have the same model and the same data.

        Raises:
            UserError: They differ; names the parts.
        """
        if current().size > 1:
            current().agree(self.statistics_fingerprint(examples, "answer"))
