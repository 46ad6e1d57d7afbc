"""Reading examples and turning them into batches; importing this does not import torch."""

from kvw.data.batches import Prepared, answer_batch, image_groups, prepare, prompt_batch, to_model
from kvw.data.example import Example, ImageSource
from kvw.data.images import check_images, image_digest, load_image
from kvw.data.readers import read_examples
from kvw.data.rendering import Rendered, render
from kvw.data.text import TextProcessor
