"""Edits: what a method returns, how it acts on a model, and its file."""

from kvw.edits.edit import Attachment, Edit, EditMetadata, load_edit
from kvw.edits.gates import GateEdit
from kvw.edits.rounded_gates import RoundedGateEdit

__all__ = ["Attachment", "Edit", "EditMetadata", "GateEdit", "RoundedGateEdit", "load_edit"]
