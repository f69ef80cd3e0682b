# The program, for every role. Built from the source tree: docker build -f docker/base.Dockerfile -t frostbyte-base .
FROM python:3.12-slim
WORKDIR /usr/src/frostbyte
COPY pyproject.toml constraints.txt README.md ./
COPY s3gw s3gw
COPY cluster cluster
COPY storage storage
RUN pip install --no-cache-dir --constraint constraints.txt . \
    && useradd --system --uid 10001 frostbyte \
    && install -d -o frostbyte -g frostbyte -m 0700 /var/lib/frostbyte /run/frostbyte
USER frostbyte
WORKDIR /var/lib/frostbyte
ENTRYPOINT ["frostbyte"]
