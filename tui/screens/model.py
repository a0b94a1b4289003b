from .step import StepScreen
class ModelScreen(StepScreen):
    step="model"; basic=("model.source","model.precision","model.max_length")
