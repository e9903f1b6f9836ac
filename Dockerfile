# Build with the toolchain, run on a slim Debian as uid 10001; nothing in the image needs a writable root.
#
# Alone, with the embedded SQLite (data, key and first token in the volume):
#   docker run --read-only --tmpfs /tmp -v rekey:/var/lib/rekey -p 127.0.0.1:8080:8080 rekey:local

FROM rust:1-trixie AS build
WORKDIR /src
COPY . .
# What `rekey --version` says; the context has no .git to ask.
ARG REKEY_COMMIT=unknown
# The target folder is kept between builds for the dependencies' sake. Cargo trusts file times, and another checkout's
# sources may be older than what was built last from this one: touched, our own crates are always compiled anew.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && REKEY_COMMIT="$REKEY_COMMIT" cargo build --release --locked --package rekey --bin rekey \
    && install -D target/release/rekey /out/rekey

FROM debian:trixie-slim
RUN groupadd --gid 10001 rekey \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/rekey --shell /usr/sbin/nologin rekey \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/rekey
# For amqps://, postgres:// with TLS and a JWKS over https.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/rekey /usr/local/bin/rekey
USER 10001:10001
WORKDIR /var/lib/rekey
# Loopback inside a container reaches nobody: who may reach it is said by the ports that are published.
ENV REKEY__SERVER__HOST=0.0.0.0
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["rekey", "healthcheck"]
ENTRYPOINT ["rekey"]
CMD ["serve"]
