"""Finished runs side by side: a leaderboard with tests of significance, as Markdown, HTML and JSON."""

from two_tower.report.compare.leaderboard import Leaderboard, leaderboard
from two_tower.report.compare.page import brief_page, html_page, markdown_page, pictures
from two_tower.report.compare.plots import alone

__all__ = ["Leaderboard", "alone", "brief_page", "html_page", "leaderboard", "markdown_page", "pictures"]
