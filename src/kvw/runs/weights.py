"""Whether an edit is used on the weights that it was made on: one rule for every command."""

from __future__ import annotations

from kvw.edits.edit import Edit
from kvw.errors import UserError
from kvw.progress import Reporter


def check_weights(
    edit: Edit, fingerprint: str, reporter: Reporter, *, other_weights: bool = False, name: str = ""
) -> bool:
    """Refuse an edit that was made on other weights; an inverse is meant for others.

    Weights that have the edit in them already are others, so no edit is written into the same weights twice.

    Args:
        edit: Any edit.
        fingerprint: SHA-256 of the weights it is to be used on, from
            :func:`kvw.measuring.fingerprint.weights_digest`.
        reporter: Told of an inverse on weights without the edit, of an edit that does not say where it was made, and
            of other weights that are allowed.
        other_weights: Whether the user allows other weights.
        name: What the user calls the edit, if there are several.

    Returns:
        Whether these are the weights that the edit was made on.

    Raises:
        UserError: The edit was made on other weights, and ``other_weights`` is off.
    """
    made_on, base = edit.metadata.model_fingerprint, edit.metadata.base_model or "a model without a name"
    which = f"The edit '{name}'" if name else "The edit"
    if edit.metadata.undoes:
        if made_on == fingerprint:
            reporter.warn(
                f"These are the weights of {base} without any edit in them: an inverse makes stronger here what the "
                "edit would have weakened."
            )
    elif not made_on:
        reporter.warn(f"{which} does not say which weights it was made on; here it just fits in shape.")
    elif made_on != fingerprint:
        if not other_weights:
            states = ", and it goes by the hidden states of that model" if edit.reads_states else ""
            raise UserError(
                f"{which} was made on other weights{states}.",
                found=f"made on {base} with fingerprint {made_on[:12]}, here {fingerprint[:12]}; perhaps these weights "
                "have the edit in them already",
                do="use the model that the edit was made on, or make the edit again on this one; --other-weights "
                "allows it all the same",
            )
        reporter.warn(
            f"{which} was made on {base} with other weights ({made_on[:12]}, here {fingerprint[:12]}): what was "
            "measured there says nothing about this model."
        )
    return made_on == fingerprint
