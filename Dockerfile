# The worker's image; other commands: `docker run IMAGE feed --help`.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt .
# The CPU build is a tenth of the size of the CUDA build, and satisfies the pin below.
RUN pip install --no-deps --index-url https://download.pytorch.org/whl/cpu \
    "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY xl3m_core xl3m_core
COPY stream_app stream_app
RUN pip install -c constraints.txt '.[registry,gguf]'

FROM python:3.11.14-slim-bookworm
RUN useradd --create-home --uid 10001 xl3m \
    && install -d -o xl3m -g xl3m /home/xl3m/.cache /home/xl3m/.cache/huggingface
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER xl3m
WORKDIR /home/xl3m
VOLUME /home/xl3m/.cache/huggingface
ENTRYPOINT ["xl3m"]
CMD ["worker"]
