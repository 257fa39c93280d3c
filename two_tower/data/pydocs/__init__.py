"""The default data: documentation of the installed Python packages."""

from two_tower.data.pydocs.pydocs import PyDocs

__all__ = ["PyDocs"]
