"""The names of the splits by which edits are judged."""

FORGET, HELD_OUT_FORGET, OWN_WORDS, TEXT = "forget", "held-out forget", "forget, own words", "plain text"
AS_ASKED = (FORGET, HELD_OUT_FORGET)
"""The splits of forget questions with the answers of the user."""
FORGETTING = (*AS_ASKED, OWN_WORDS)
"""The splits that say what is forgotten: as it was asked, held-out views, and what the model says in its own words."""
ALL_HELD_OUT = "all held out"
"""The questions of all held-out sources together."""
