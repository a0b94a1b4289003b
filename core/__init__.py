"""The product without a face: the five steps, the recipe, the runs and the worker that trains."""
