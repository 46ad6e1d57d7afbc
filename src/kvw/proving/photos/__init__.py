"""Planted people with photos: a LLaVA whose text decoder is a pretrained model, and people who were fine-tuned in."""
