# The job on CPUs (x86-64), as launch/setup_env.sh makes it: TensorFlow 1.15 in Intel's
# build, and Horovod for more ranks than one.
#
#   docker build -t alexnet-estimator .
#   mkdir -p runs && docker run --rm --user "$(id -u):$(id -g)" \
#     -v "$PWD/photos:/data:ro" -v "$PWD/runs:/runs" \
#     alexnet-estimator train --data_path=/data --model_dir=/runs/first
#
# It has not been built where it was written, for want of Docker. Its commands were run
# there on a copy of the files that .dockerignore lets through.
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
# The environment names /job and the base's interpreter: both are the same here.
COPY --from=build /job /job
COPY rank_tables /job/rank_tables
COPY examples /job/examples
# Matplotlib and others write below $HOME, which --user leaves without an owner.
ENV HOME=/tmp PATH="/job/.venv/1.15-intel/bin:$PATH"
RUN install --directory --owner=1000 /runs /data
USER 1000
VOLUME ["/data", "/runs"]
# Runs without --model_dir go to runs/NAME, which is on the volume.
WORKDIR /
ENTRYPOINT ["alexnet-estimator"]
CMD ["--help"]
