# Builds and runs without a network: `make wheels` puts everything it needs into wheels/ beforehand.
# docker build --tag kvw .        (or --build-arg BASE=nvidia/cuda:... with Python 3.11 in it)
ARG BASE=python:3.11-slim
FROM ${BASE}
COPY wheels /wheels
RUN python -m pip install --no-index --find-links /wheels --no-cache-dir 'kvw[evidence,serve]'
RUN mkdir -p /cache /work && chmod 1777 /cache /work
ENV KVW_CACHE=/cache HF_HUB_OFFLINE=1 HOME=/cache
RUN kvw methods
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["kvw"]
