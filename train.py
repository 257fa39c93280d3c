"""Run one experiment, the same as ``two-tower train``.

python train.py [group=choice] [key=value]      one run; the same command continues or repeats nothing
python train.py -m tower=average,gru seed=0,1   a sweep
"""

from two_tower.train import main, train

__all__ = ["main", "train"]

if __name__ == "__main__":
    main()
