"""The rest is in setup.cfg, which cannot put a folder of elsewhere into a package."""

from setuptools import find_packages, setup

setup(
    # The ready-made configurations: beside the package in a clone, in it in a wheel.
    package_dir={"alexnet_estimator.configs": "configs"},
    packages=[
        *find_packages(include=["alexnet_estimator*"]),
        "alexnet_estimator.configs",
    ],
)
