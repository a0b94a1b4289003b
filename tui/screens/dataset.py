from .step import StepScreen
class DatasetScreen(StepScreen):
    step="dataset"; basic=("dataset.source","dataset.format","dataset.system_prompt","dataset.train_on","dataset.evaluation_share")
