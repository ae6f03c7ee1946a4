# The page, for one machine, without a GPU:
#
#     docker build -t siamese .
#     docker run --read-only --tmpfs /tmp -p 7860:7860 siamese
#
# To show a network of yours, add: -v "$PWD/runs:/runs:ro" siamese siamese page /runs/FOLDER
FROM python:3.12-slim

COPY . /source
RUN pip install --no-cache-dir --constraint /source/requirements.lock uv \
    && UV_TORCH_BACKEND=cpu uv pip install --system --no-cache --compile-bytecode \
        --constraint /source/requirements.lock --build-constraint /source/requirements.lock '/source[page,heic]' \
    && rm -r /source

# Uploads, the cache and whatever a library writes are in /tmp. Everything else can be read-only.
ENV GRADIO_SERVER_NAME=0.0.0.0 \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860', timeout=4)"]
CMD ["siamese", "page"]
