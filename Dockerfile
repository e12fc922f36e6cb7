FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# libgomp: torch's threads
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 recsys
WORKDIR /app

# torch alone first: its CPU build is the largest layer and changes least
COPY constraints.txt ./
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu --constraint constraints.txt "torch==2.13.0"

COPY pyproject.toml README.md LICENSE ./
COPY recsys recsys
COPY jobs jobs
COPY api api
COPY expectations expectations
COPY feature_repo feature_repo
# editable: settings and Feast find their folders beside the code
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu --constraint constraints.txt --editable . \
    && mkdir data && chown -R recsys:recsys /app

USER recsys
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
CMD ["recsys", "serve"]
