"""``python -m two_tower`` equals ``two-tower``."""

from two_tower.cli import main

if __name__ == "__main__":
    main()
