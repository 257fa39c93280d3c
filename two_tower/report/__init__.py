"""What a run leaves behind: its folder, its tables, its results."""
