"""Which modules a wheel holds: `configs/` lies beside the package in a clone and inside it in a wheel."""

from setuptools import find_packages, setup

setup(
    py_modules=["finesieve"],
    packages=[*find_packages(include=["filters*"]), "filters.configs"],
    package_dir={"filters.configs": "configs"},
)
