"""Exact ranking of a corpus: best documents and ranks of judged pairs, block by block, in bounded memory.

Knows nothing of models: a caller gives a function that scores a block of queries against a block of documents, or
vectors. Validation, mining, the flat index and BM25 share it. **One order everywhere:** score descending, then
document id descending, as in trec_eval.
"""

from two_tower.ranking.base import Blocks, Ranking, RowPairs, Share, id_order, write_run
from two_tower.ranking.exact import Score, rank
from two_tower.ranking.vectors import nearest

__all__ = ["Blocks", "Ranking", "RowPairs", "Score", "Share", "id_order", "nearest", "rank", "write_run"]
