"""What runs leave behind to be read again: ``run.json`` and ``samples.jsonl``."""
