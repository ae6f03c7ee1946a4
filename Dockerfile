# The page, for one machine, without a GPU:
#
#     docker build -t siamese .
#     docker run --read-only --tmpfs /tmp -p 7860:7860 siamese
#
# To show a network of yours, add: -v "$PWD/runs:/runs:ro" siamese siamese page /runs/FOLDER
FROM python:3.12-slim

# The folder is only mounted. Of it, the image holds the files that hatch_build.py lists, in the installed package.
RUN --mount=type=bind,target=/source \
    pip install --no-cache-dir --constraint /source/requirements.lock uv \
    && UV_TORCH_BACKEND=cpu uv pip install --system --no-cache --compile-bytecode \
        --constraint /source/requirements.lock --build-constraint /source/requirements.lock '/source[page,heic]'

# Uploads, the cache and whatever a library writes are in /tmp. Everything else can be read-only. If Docker is set up for
# a proxy, the health check does not go through it.
ENV GRADIO_SERVER_NAME=0.0.0.0 \
    HOME=/tmp \
    NO_PROXY=127.0.0.1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860', timeout=4)"]
CMD ["siamese", "page"]
