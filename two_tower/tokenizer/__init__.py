"""Text → ids: a word vocabulary trained on the run's texts, encoded at memory speed."""
