# Two images: `exporter` (the default) and `demo` (a JupyterHub with simulated people).
# All that is installed comes from lock files with hashes; compilers are in neither.
ARG PYTHON=python:3.14.8-slim-trixie@sha256:89fb7d3da20043c370643435258bdd7ab755d326d359001d02988ed15ae5219e

FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/venv
COPY requirements/run.txt requirements/build.txt requirements/
RUN pip --python /opt/venv install --require-hashes --no-deps -r requirements/run.txt \
    && pip install --require-hashes --no-deps -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY hub_idle_exporter hub_idle_exporter
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && pip --python /opt/venv install --no-deps --no-index /dist/*.whl

FROM build AS build-demo
COPY requirements/demo.txt requirements/demo.txt
RUN pip --python /opt/venv install --require-hashes --no-deps -r requirements/demo.txt \
    && ln -s /opt/venv/lib/python3*/site-packages/hub_idle_exporter/demo /opt/venv/demo
# For the services of docker-compose.yml. In a checkout that was made under umask 077 nobody else
# may read these files.
COPY prometheus/prometheus.yml prometheus/rules.yml /opt/stack/prometheus/
COPY grafana/provisioning /opt/stack/provisioning
COPY grafana/dashboards /opt/stack/dashboards
COPY hub_idle_exporter/demo/policy.yaml /opt/stack/policy/policy.yaml
RUN chmod -R u=rwX,go=rX /opt/stack

FROM ${PYTHON} AS base
# Of this checkout: --build-arg SOURCE=(where it is from) --build-arg REVISION=$(git rev-parse HEAD)
ARG SOURCE
ARG REVISION
LABEL org.opencontainers.image.licenses="BSD-3-Clause" \
    org.opencontainers.image.version="1.0.0" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN pip uninstall --yes --root-user-action=ignore wheel setuptools pip \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /srv/hub --shell /usr/sbin/nologin hub

FROM base AS demo
LABEL org.opencontainers.image.title="hub-idle-exporter-demo" \
    org.opencontainers.image.description="A JupyterHub with simulated people, to try hub-idle-exporter on"
COPY --from=build-demo /opt/venv /opt/venv
COPY --from=build-demo /opt/stack /opt/stack
# A volume that is mounted here for the first time takes over owner and mode.
RUN install -d -o hub -g hub -m 0750 \
    /srv/hub /secrets /secrets/hub /secrets/exporter /secrets/people /secrets/grafana \
    && install -d -o hub -g hub -m 0755 \
    /config /config/policy /config/prometheus /config/provisioning /config/dashboards
USER 10001:10001
WORKDIR /srv/hub
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/hub/health', timeout=4)"]
CMD ["python", "-m", "jupyterhub", "--config=/opt/venv/demo/jupyterhub_config.py"]

FROM base AS exporter
LABEL org.opencontainers.image.title="hub-idle-exporter" \
    org.opencontainers.image.description="Prometheus exporter for idle JupyterHub servers, and an idle culler that never stops a server that it finds in use"
COPY --from=build /opt/venv /opt/venv
# Not in CMD, which the first argument after the image's name would replace.
ENV HUB_IDLE_EXPORTER_WEB_LISTEN_ADDRESS=:9899
USER 10001:10001
WORKDIR /
EXPOSE 9899
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-m", "hub_idle_exporter.healthy"]
ENTRYPOINT ["hub-idle-exporter"]
