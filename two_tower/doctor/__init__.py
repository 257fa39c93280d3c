"""What is wrong with a run: signals that are measured, diagnoses made of them, and what to change."""
