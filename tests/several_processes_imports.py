"""What is heavy to import and what processes of tests need; see several_processes."""

import gc

gc.disable()  # while all of this is imported; no process that is forked need go through it either

import accelerate  # noqa: F401
import tests.short_language  # before the runs, as in the process that starts the others
import tests.tiny_models  # noqa: F401
import torch.distributed.tensor  # noqa: F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import kvw.cli
import kvw.evaluation.evaluation
import kvw.processes
import kvw.report.tables
import kvw.runs.erase
import kvw.runs.measure  # noqa: F401

get_checkpoint_conversion_mapping("llava")  # a table that transformers builds once, in half a second
gc.freeze()
gc.enable()
