"""Names of jobs' folders."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from two_tower.config.sweep import folder_name


def test_overrides_are_the_name() -> None:
    assert folder_name("loss=in_batch,seed=0,tower.dim=128") == "loss=in_batch,seed=0,tower.dim=128"
    assert folder_name("") == "default"


def test_paths_lose_their_slashes_and_their_beginnings() -> None:
    name = folder_name("data.path=/somewhere/far/away/from/here/msmarco-small,loss=triplet,seed=0")
    assert re.fullmatch(r"data\.path=[\w-]*msmarco-small,loss=triplet,seed=0-[0-9a-f]{8}", name)
    assert name != folder_name("data.path=/somewhere/near/away/from/here/msmarco-small,loss=triplet,seed=0")


@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_no_two_jobs_share_a_folder_and_every_name_is_one(overrides: list[str]) -> None:
    names = [folder_name(each) for each in overrides]
    assert names[0] != names[1] or "default" in overrides
    for name in names:
        assert name
        assert name not in (".", "..")
        assert len(name.encode()) <= 255
        assert re.fullmatch(r"[\w.,=+@-]+", name)
