# The job on CPUs (x86-64), set up by launch/setup_env.sh: TensorFlow 1.15 in Intel's
# build, and Horovod for several ranks.
#
#   docker build -t alexnet-estimator .
#   mkdir -p runs && docker run --rm --user "$(id -u):$(id -g)" \
#     -v "$PWD/photos:/data:ro" -v "$PWD/runs:/runs" \
#     alexnet-estimator train --data_path=/data --model_dir=/runs/first
#
# This image has not been built yet, because Docker was not available. Its commands were
# run on a copy of the files that .dockerignore does not exclude.
FROM python:3.7-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /job
COPY setup.py setup.cfg README.md LICENSE ./
COPY constraints constraints
COPY launch launch
COPY configs configs
COPY alexnet_estimator alexnet_estimator
RUN bash launch/setup_env.sh --with-horovod

FROM python:3.7-slim-bookworm
# The environment contains the paths of /job and of the base's interpreter, which are the
# same in both stages.
COPY --from=build /job /job
COPY rank_tables /job/rank_tables
COPY examples /job/examples
# Matplotlib and others write below $HOME, which the user of --user does not own.
ENV HOME=/tmp PATH="/job/.venv/1.15-intel/bin:$PATH"
RUN install --directory --owner=1000 /runs /data
USER 1000
VOLUME ["/data", "/runs"]
# Runs without --model_dir go to runs/NAME, which is on the volume.
WORKDIR /
ENTRYPOINT ["alexnet-estimator"]
CMD ["--help"]
