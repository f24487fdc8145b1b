# A small image of the one binary, in mock mode unless told otherwise.

FROM rust:1.95-slim-trixie AS build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The first lines build the dependencies alone, so that a change of the sources does not build them again.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -r src
COPY fixtures fixtures
COPY src src
# What `kiegate_build_info` says: docker build --build-arg COMMIT=$(git rev-parse --short=12 HEAD) .
ARG COMMIT=unknown
RUN touch build.rs src/main.rs src/lib.rs && BUILD_COMMIT=$COMMIT cargo build --release --locked

FROM debian:trixie-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin kiegate
COPY --from=build /src/target/release/kiegate /usr/local/bin/kiegate
COPY LICENSE /usr/share/doc/kiegate/LICENSE
USER 10001
# In a container 127.0.0.1 is the container alone. In live mode the admin plane then needs a token.
ENV KIEGATE_LISTEN=0.0.0.0:8787 KIEGATE_ADMIN__LISTEN=0.0.0.0:8788
EXPOSE 8787 8788
HEALTHCHECK --interval=10s --timeout=6s --start-period=2s --retries=3 CMD ["kiegate", "health"]
ENTRYPOINT ["kiegate"]
CMD ["serve"]
