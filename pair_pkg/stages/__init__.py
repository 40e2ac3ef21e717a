"""The doors behind the command lines: adapt, fine-tune, pipeline, inspect."""
