"""The proving ground: requests to forget facts that a pretrained model knows, and what unlearning makes of them."""
