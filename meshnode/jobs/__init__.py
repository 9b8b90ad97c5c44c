"""What users write: model.yaml, job files and the files beside them, read into frozen values."""
