"""Imported before the runs: how long they listen to ordinary language, made short.

Every run that writes a model listens twice, and twelve answers of forty tokens are a third of what it takes. What the
tests ask of it, fewer answers show as well; the shipped numbers are those of every run in a process of its own.
"""

from kvw.evaluation import language

language.PROMPTS, language.LONGEST_ANSWER = 3, 4  # of fewer answers than three nothing is said
