"""The metrics of the unlearning field as pure functions of plain values; docs/metrics.md has the table.

Those that need scipy or NLTK import it when called; ``pip install "kvw[bench]"`` brings both.
"""

from kvw.evaluation.metrics.choice import (
    closest_option,
    first_character,
    first_letter,
    letter_outcome,
    likeliest,
    likelihood_outcome,
    parse_letter,
)
from kvw.evaluation.metrics.extraction import extraction_strength, memorisation_accuracy
from kvw.evaluation.metrics.forget_quality import ForgetQuality, clear_forget_quality, forget_quality, jensen_shannon
from kvw.evaluation.metrics.intervals import (
    Interval,
    PairedCounts,
    mcnemar,
    mean_interval,
    paired_difference,
    seeds_interval,
    subjects_of,
)
from kvw.evaluation.metrics.likelihood import answer_probability, normalised_probability
from kvw.evaluation.metrics.membership import membership_auc, min_k, min_k_plus_plus
from kvw.evaluation.metrics.outcome import Outcome, OutcomeCounts, is_refusal, open_outcome
from kvw.evaluation.metrics.text import (
    Rouge,
    bleu,
    cloze_match,
    exact_match,
    keyword_share,
    normalised_substring,
    rouge_1,
    rouge_2,
    rouge_l,
)
from kvw.evaluation.metrics.truth_ratio import (
    Orientation,
    clear_truth_ratios,
    forget_truth_ratio,
    retain_truth_ratio,
    truth_ratio,
)
from kvw.evaluation.metrics.unlearning import (
    forget_accuracy_both,
    forget_rouge_both,
    relative_forgetting,
    retain_accuracy_both,
    retain_rouge_both,
)
from kvw.evaluation.metrics.utility import SetUtility, harmonic_mean, model_utility
