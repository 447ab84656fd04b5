"""Entry points that jobs and the command line may name: JSON values in, frozen values out.

One module per family; a job names a task by text, as in "quantstudio.engine.tasks.models:open_model".
"""
