"""What happens around training: checkpoints, speed."""
