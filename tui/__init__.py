"""The face of finetui: a Textual wizard and the command line."""
