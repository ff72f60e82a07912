# userrep with its environment, for drivers: a daily run on one machine, or as the client of a Spark cluster. For GPUs:
#     docker build --tag userrep .
#     docker build --tag userrep:gpu --build-arg HOROVOD_GPU_OPERATIONS=NCCL .
# docs/how-to/schedulers.md is the page on it.
FROM debian:12-slim AS build
# What deploy/preflight.sh asks for, with Debian's updates. Debian 12 has Python 3.11 and Java 17.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential openjdk-17-jre-headless python3.11-dev python3.11-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/userrep
COPY Makefile setup.py pyproject.toml README.md LICENSE ./
COPY deploy deploy
COPY userrep userrep
COPY examples examples
COPY jobs jobs
COPY conf conf
ARG HOROVOD_GPU_OPERATIONS=""
# Compiled modules: at run time, the files are read-only.
ENV USERREP_JARS=/opt/userrep/jars UV_COMPILE_BYTECODE=1
RUN make install && .venv/bin/python -m compileall -q userrep examples && rm -rf /root/.cache

FROM debian:12-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 openjdk-17-jre-headless procps python3.11 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 userrep
COPY --from=build /opt/userrep /opt/userrep
ENV PATH=/opt/userrep/.venv/bin:$PATH PYSPARK_PYTHON=/opt/userrep/.venv/bin/python \
    USERREP_JARS=/opt/userrep/jars USERREP_LOG=json
USER 10001
WORKDIR /home/userrep
ENTRYPOINT ["userrep"]
CMD ["--help"]
