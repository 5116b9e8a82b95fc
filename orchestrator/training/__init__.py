"""Training one sequence: the loop over tasks, a task, a step, and what they are made of."""
