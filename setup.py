"""Packaging: see pyproject.toml. What stands here can't be said there."""

from setuptools import find_packages, setup

setup(
    # The dropin of twistd goes into a package that Twisted owns: the one module, and no `__init__.py`.
    packages=[*find_packages(include=["wafermon", "wafermon.*"]), "twisted.plugins"],
    package_dir={"": "."},
    package_data={"wafermon": ["py.typed"], "wafermon.config": ["*.yaml"], "wafermon.backends": ["*/*.sql"]},
)
