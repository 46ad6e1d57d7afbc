"""A page that a model has learnt by heart, and what it still says of it after it was to forget the page."""
