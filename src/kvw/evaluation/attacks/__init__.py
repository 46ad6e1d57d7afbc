"""Attacks on unlearned models: each changes a model for the length of a block and gives it its weights back."""

from kvw.evaluation.attacks.changing import attacked
from kvw.evaluation.attacks.lens import lens_ranks
from kvw.evaluation.attacks.quantising import quantise_weight, quantised
from kvw.evaluation.attacks.relearning import relearned, relearning_settings, split_by_subject
from kvw.evaluation.attacks.rounding import rounded
from kvw.evaluation.attacks.sampling import drawn_answers
from kvw.training.keeping import PutOn, folded, trained_weights, weights_kept
