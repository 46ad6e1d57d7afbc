"""Edits: what a method returns, how it acts on a model, its file, its algebra, and its form as a PEFT adapter."""

from kvw.edits.adapter_import import import_adapter
from kvw.edits.adapters import export_ia3, export_lora
from kvw.edits.algebra import compose, invert, mix, scale
from kvw.edits.anchored import anchor
from kvw.edits.calibration import Calibration, calibrate
from kvw.edits.conditional import Condition, ConditionalGateEdit, attach_where
from kvw.edits.difference import EditDifference, diff
from kvw.edits.edit import Attachment, Edit, EditMetadata, load_edit
from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import Directions, LowRankEdit
from kvw.edits.offset import OffsetEdit
from kvw.edits.rotation import Rotation, RotationEdit
from kvw.edits.rounded_gates import RoundedGateEdit
from kvw.edits.steering import Steer, SteeringEdit
from kvw.edits.surviving import surviving_shares
from kvw.edits.weights import WeightsEdit

__all__ = [
    "Attachment",
    "Calibration",
    "Condition",
    "ConditionalGateEdit",
    "Directions",
    "Edit",
    "EditDifference",
    "EditMetadata",
    "GateEdit",
    "LowRankEdit",
    "OffsetEdit",
    "Rotation",
    "RotationEdit",
    "RoundedGateEdit",
    "Steer",
    "SteeringEdit",
    "WeightsEdit",
    "anchor",
    "attach_where",
    "calibrate",
    "compose",
    "diff",
    "export_ia3",
    "export_lora",
    "import_adapter",
    "invert",
    "load_edit",
    "mix",
    "scale",
    "surviving_shares",
]
