# An image for GPU machines; the wheels bring CUDA, the host its driver (525 or later).
#   docker build -t resnet-jax . && docker run --gpus=all resnet-jax --config=quickstart --workdir=/tmp/run
FROM python:3.13-slim
WORKDIR /resnet_jax
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY resnet_jax resnet_jax
# The versions are those that pyproject.toml allows.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[cuda12]"
# Jobs need no root.
USER 1000
ENV HOME=/tmp
WORKDIR /tmp
ENTRYPOINT ["resnet-jax"]
