"""UnLOK-VQA's attacks and metrics, on its data, one fact at a time."""
