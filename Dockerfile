# Two images: `exporter` (the default) and `demo` (a JupyterHub with simulated people).
# All that is installed comes from lock files with hashes; compilers are in neither.
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/venv
COPY requirements/run.txt requirements/run.txt
RUN pip --python /opt/venv install --require-hashes --no-deps -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY hub_idle_exporter hub_idle_exporter
RUN pip --python /opt/venv install --no-deps .

FROM build AS build-demo
COPY requirements/demo.txt requirements/demo.txt
RUN pip --python /opt/venv install --require-hashes --no-deps -r requirements/demo.txt

FROM ${PYTHON} AS base
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN pip uninstall --yes --root-user-action=ignore wheel setuptools pip \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /srv/hub --shell /usr/sbin/nologin hub

FROM base AS demo
COPY --from=build-demo /opt/venv /opt/venv
# A volume that is mounted here for the first time takes over owner and mode.
RUN install -d -o hub -g hub -m 0750 \
    /srv/hub /secrets /secrets/hub /secrets/exporter /secrets/people /secrets/grafana
USER 10001:10001
WORKDIR /srv/hub
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/hub/health', timeout=4)"]
CMD ["python", "-m", "jupyterhub", "--config=/opt/venv/lib/python3.11/site-packages/hub_idle_exporter/demo/jupyterhub_config.py"]

FROM base AS exporter
COPY --from=build /opt/venv /opt/venv
USER 10001:10001
WORKDIR /
EXPOSE 9899
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import ssl, urllib.request as r\ntry: r.urlopen('http://127.0.0.1:9899/-/healthy', timeout=2)\nexcept OSError: r.urlopen('https://127.0.0.1:9899/-/healthy', timeout=2, context=ssl._create_unverified_context())"]
ENTRYPOINT ["hub-idle-exporter"]
CMD ["--web.listen-address=:9899"]
