"""``kvw apply``: an edit written into the weights of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from kvw.edits.edit import Edit
from kvw.files import check_output_directory, new_directory
from kvw.models.loading import Checkpoint
from kvw.models.saving import check_disk_space, save_checkpoint
from kvw.runs.costs import Stopwatch
from kvw.runs.loaded import Loaded
from kvw.runs.reporter import Reporter


def apply(edit: Edit, checkpoint: Checkpoint, out: Path, reporter: Reporter, *, force: bool = False) -> None:
    """Write the checkpoint with the edit folded in.

    Raises:
        UserError: The edit is of another model, or ``out`` cannot be written; it is then as it was before.
    """
    check_output_directory(out, force=force)
    watch = Stopwatch(reporter)
    with watch.stage("loading the model"):
        loaded = Loaded.load(checkpoint)
    check_disk_space(loaded.model, out)
    warn_if_other_weights(edit, loaded, reporter)
    edit.fold(loaded.model)
    with watch.stage("writing"), new_directory(out, force=force) as folder:
        save_checkpoint(loaded.model, checkpoint.folder, folder)


def warn_if_other_weights(edit: Edit, loaded: Loaded, reporter: Reporter) -> None:
    """Say so if an edit was made on weights other than those it is used with."""
    made_on = edit.metadata.model_fingerprint
    if made_on and made_on != loaded.fingerprint:
        reporter.warn(
            f"This edit was made on {edit.metadata.base_model} with other weights "
            f"({made_on[:12]}, here {loaded.fingerprint[:12]}); its effect on these was never measured."
        )
