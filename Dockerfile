# One build, two images: --target api and --target indexer differ in their command alone.
#
# The same commit gives the same program, byte for byte: no paths, no times, no state of
# the work tree go into it. Delivery passes the bases by digest (GO_IMAGE=golang@sha256:…,
# RUNTIME_IMAGE=…@sha256:…), and the labels' arguments; tags are for people.
ARG GO_IMAGE=golang:1.26-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/static-debian12:nonroot

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} GOFLAGS="-trimpath -buildvcs=false -mod=readonly" \
    go build -ldflags "-s -w -buildid= -X main.version=${VERSION}" -o /out/layers ./cmd/layers

FROM ${RUNTIME_IMAGE} AS runtime
COPY --from=build /out/layers /layers
COPY LICENSE /LICENSE
USER 1001:1001
ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Layers appview" \
      org.opencontainers.image.description="Makes linguistic annotation on the AT Protocol findable" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="layers-pub" \
      org.opencontainers.image.url="https://github.com/layers-pub/layers-appview" \
      org.opencontainers.image.documentation="https://github.com/layers-pub/layers-appview/tree/main/docs" \
      org.opencontainers.image.source="https://github.com/layers-pub/layers-appview" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
ENTRYPOINT ["/layers"]

FROM runtime AS indexer
EXPOSE 3000 9090
CMD ["indexer"]

FROM runtime AS api
EXPOSE 3000 9090
CMD ["api"]
