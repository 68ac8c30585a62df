"""Learn from judged attempts: the command, the recipes, the learner, the engines."""
