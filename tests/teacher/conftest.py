"""A teacher of two random layers, as a folder that Sentence Transformers loads."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def teacher_folder(transformer_folder: Path) -> Path:
    """A BERT of 16 dimensions, of which Sentence Transformers takes the mean."""
    pytest.importorskip("sentence_transformers", reason="needs pip install -e '.[teacher]'")
    return transformer_folder
