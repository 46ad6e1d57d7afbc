import torch
from tests import tiny_models
from transformers import AutoModelForImageTextToText, AutoProcessor

from kvw.data import Example, answer_batch, prepare

EXAMPLES = [
    Example("Who?", " Ada 🦊\n", (tiny_models.noise_png(1),)),
    Example("Where?", "Å", (tiny_models.noise_png(2),)),
]


def test_a_saved_family_loads_with_the_auto_classes_and_computes_the_same(family, model, processor, tmp_path):
    state = torch.get_rng_state()
    folder = tiny_models.save(family, tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    loaded = AutoModelForImageTextToText.from_pretrained(folder)
    loaded_processor = AutoProcessor.from_pretrained(folder)
    assert type(loaded) is type(model)
    assert type(loaded_processor) is type(processor)
    batch = answer_batch(prepare(EXAMPLES, processor), processor)
    reloaded = answer_batch(prepare(EXAMPLES, loaded_processor), loaded_processor)
    assert batch.keys() == reloaded.keys()
    assert all(torch.equal(batch[name], reloaded[name]) for name in batch)
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, loaded(**reloaded).logits)
