"""Lenses and sets of them: simulator, surveys, TFDS sets, batches as a function of the step."""
