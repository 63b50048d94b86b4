# syntax=docker/dockerfile:1
# Tags are exact rather than digests, so that a rebuild takes the distribution's security fixes.
FROM python:3.13-slim-trixie AS build
WORKDIR /build
COPY requirements/run.txt requirements/
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/run.txt
COPY requirements/build.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY functions.example functions.example
COPY kapso_sync kapso_sync
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /wheels/*.whl \
 && /venv/bin/pip uninstall --yes pip \
 && find /venv -type d '(' -name __pycache__ -o -name test -o -name tests ')' -prune -exec rm -rf {} +

FROM node:24-trixie-slim AS esbuild
WORKDIR /esbuild
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

# Debian's git comes with perl, scripts and servers, 100 MB in all. Cloning and fetching take these two programs, without perl.
FROM python:3.13-slim-trixie AS git
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git \
 && rm -rf /var/lib/apt/lists/* \
 && install -d /git/usr/bin /git/usr/lib /git/usr/share/doc/git \
 && cp -a /usr/lib/git-core /git/usr/lib/ \
 && cp -a /usr/share/git-core /git/usr/share/ \
 && cp /usr/share/doc/git/copyright /git/usr/share/doc/git/ \
 && find /git/usr/lib/git-core -mindepth 1 ! -type l ! -name git ! -name git-remote-http -delete \
 && ln -s ../lib/git-core/git /git/usr/bin/git

FROM python:3.13-slim-trixie
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="kapso-sync" \
      org.opencontainers.image.description="GitOps for Kapso functions: push to git, and what runs becomes what git says." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# libcurl is git's, for https. ssh refuses to run for a user without a line in passwd. Signatures of commits are judged by ssh-keygen,
# which comes with ssh, and gpgv.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates gpgv libcurl3t64-gnutls openssh-client tini \
 && rm -rf /var/lib/apt/lists/* \
 && pip uninstall --yes pip \
 && echo 'kapso-sync:x:10001:10001:kapso-sync:/tmp:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'kapso-sync:x:10001:' >> /etc/group \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/kapso-sync
COPY --from=git /git /
COPY --from=build /venv /venv
# The program alone, without node: it is where an installed kapso-sync looks for its own copy.
COPY --from=esbuild /esbuild/node_modules/@esbuild /venv/lib/node_modules/@esbuild
COPY deploy/healthcheck.py /usr/local/lib/kapso-sync/healthcheck.py
# The variable with SECRETS in its name holds a folder.
# hadolint ignore=DL3064
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    KAPSO_SYNC_STATE_DIR=/var/lib/kapso-sync \
    KAPSO_SYNC_LISTEN=0.0.0.0:8321 \
    KAPSO_SYNC_SECRETS_DIR=/run/function-secrets
USER 10001:10001
WORKDIR /var/lib/kapso-sync
VOLUME ["/var/lib/kapso-sync"]
EXPOSE 8321
# Only /tmp and the state folder are written: the root file system may be read-only. The check asks where KAPSO_SYNC_LISTEN says.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-IS", "/usr/local/lib/kapso-sync/healthcheck.py"]
ENTRYPOINT ["/usr/bin/tini", "--", "kapso-sync"]
CMD ["run"]
