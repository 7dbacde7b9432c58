"""Tasks: prompts, answers and the metric that scores them, drawn from task files."""
