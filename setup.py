"""Puts the configurations into a wheel: ``conf/`` of the repository is ``two_tower/conf`` there."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigurations(build_py):
    """Copies ``conf/`` beside the modules; an editable install reads it where it is."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("conf", Path(self.build_lib, "two_tower", "conf"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigurations})
