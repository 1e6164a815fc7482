"""Packaging: see pyproject.toml. What stands here can't be said there."""

from setuptools import Extension, find_packages, setup

# Each is optional: where there is no compiler, what it speeds up is done without it.
EXTENSIONS = [
    Extension(
        "wafermon.backends.timescaledb._rows",
        ["wafermon/backends/timescaledb/_rows.c"],
        extra_compile_args=["-O2", "-Wall", "-Wextra"],
        optional=True,
    ),
    Extension(
        "wafermon.wire._scan",
        ["wafermon/wire/_scan.c"],
        depends=["wafermon/wire/_line.h"],
        extra_compile_args=["-O2", "-Wall", "-Wextra"],
        py_limited_api=True,
        optional=True,
    ),
    Extension(
        "wafermon.wire._sums",
        ["wafermon/wire/_sums.c"],
        depends=["wafermon/wire/_line.h"],
        extra_compile_args=["-O2", "-Wall", "-Wextra"],
        py_limited_api=True,
        optional=True,
    ),
]

setup(
    # The dropin of twistd goes into a package that Twisted owns: the one module, and no `__init__.py`.
    packages=[*find_packages(include=["wafermon", "wafermon.*"]), "twisted.plugins"],
    package_dir={"": "."},
    package_data={
        "wafermon": ["py.typed"],
        "wafermon.config": ["*.yaml"],
        "wafermon.backends": ["*/*.sql", "*/*.pyi"],
        "wafermon.web": ["page/*"],
        "wafermon.wire": ["*.pyi"],
    },
    ext_modules=EXTENSIONS,
)
