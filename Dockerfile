# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS builder
WORKDIR /src
# The build context does not contain the repository's history, so the revision is an argument.
ARG REVISION=unknown
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    BUILD_REVISION="$REVISION" deploy/build \
    && install -D target/dist/elements_exporter /out/usr/local/bin/elements_exporter \
    && install -d /out/var/lib/elements_exporter

# Contains glibc, libgcc and the certificate authorities for TLS, but no shell.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="elements_exporter" \
      org.opencontainers.image.description="Prometheus exporter for AvePoint Elements" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /out/usr/local/bin/elements_exporter /usr/local/bin/elements_exporter
# For state.file. Without this directory, a new volume would belong to root.
COPY --from=builder --chown=65532:65532 /out/var/lib/elements_exporter /var/lib/elements_exporter
USER 65532:65532
EXPOSE 10027
# Uses plain HTTP on the default port. If the exporter has other --web flags, add them here as well.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s \
    CMD ["/usr/local/bin/elements_exporter", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/elements_exporter"]
