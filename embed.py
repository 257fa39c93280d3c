"""Encode a corpus with a run's document tower and index it, the same as ``two-tower embed``.

python embed.py run=RUN [data=beir data.path=FOLDER] [index=flat] [output=PATH]
"""

from two_tower.embed import embed, main

__all__ = ["embed", "main"]

if __name__ == "__main__":
    main()
