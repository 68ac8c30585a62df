"""The learner: a plain class for one step, and the Ray Train run that drives it."""
