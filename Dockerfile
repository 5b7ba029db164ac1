# evofool on the CPU: docker build -t evofool . ; docker run --rm -v "$PWD/runs:/evofool/runs" evofool run mnist-cppn
FROM python:3.13-slim

# The CPU build of torch comes from PyTorch's own index; PyPI's build for Linux brings CUDA, several gigabytes.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# EXTRAS: those of pyproject.toml, for instance --build-arg EXTRAS=imagenet,gallery
ARG EXTRAS=imagenet,http,gallery

RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.4" "torchvision>=0.19"

COPY . /source
RUN pip install --no-cache-dir "/source[$EXTRAS]" && rm -rf /source

# Not as root. Kernels that numba compiles are kept in this user's cache; runs are written to /evofool/runs.
RUN useradd --create-home --uid 1000 evofool && mkdir -p /evofool/runs && chown -R evofool /evofool
USER 1000
WORKDIR /evofool
ENTRYPOINT ["evofool"]
CMD ["--help"]
