# Builds with the Rust toolchain, and runs on a slim Debian as uid 10001. Nothing needs a writable root file system.
#
# To run it by itself, with SQLite (the volume keeps database, key and first token):
#   docker run --read-only --tmpfs /tmp -v rekey:/var/lib/rekey -p 127.0.0.1:8080:8080 rekey:local

FROM rust:1-trixie AS build
WORKDIR /src
COPY . .
# `rekey --version` shows it. The build context has no .git folder to take it from.
ARG REKEY_COMMIT=unknown
# The target folder is kept between builds, so that the dependencies are compiled once. Cargo compares file times, and the
# sources of another checkout may be older than the last build. So touch them all: our own crates are always compiled again.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && REKEY_COMMIT="$REKEY_COMMIT" cargo build --release --locked --package rekey --bin rekey \
    && install -D target/release/rekey /out/rekey

FROM debian:trixie-slim
RUN groupadd --gid 10001 rekey \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/rekey --shell /usr/sbin/nologin rekey \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/rekey
# The roots for PostgreSQL under TLS and amqps://, and for `rekey run`, `rekey events tail` and `rekey audit` where the service is at
# https://. Mount a private authority's certificates here, or set SSL_CERT_FILE.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/rekey /usr/local/bin/rekey
USER 10001:10001
WORKDIR /var/lib/rekey
# A loopback address can't be reached from outside the container. The ports that you publish decide who can reach it: publish plain HTTP
# on a loopback address or to a proxy that serves TLS, or set REKEY__SERVER__TLS_CERT and REKEY__SERVER__TLS_KEY.
ENV REKEY__SERVER__HOST=0.0.0.0 REKEY__SERVER__PLAINTEXT=true
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["rekey", "healthcheck"]
ENTRYPOINT ["rekey"]
CMD ["serve"]
