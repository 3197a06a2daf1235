# One build, two images: --target api and --target indexer differ in their command alone.
ARG GO_IMAGE=golang:1.26-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/static-debian12:nonroot

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/layers ./cmd/layers

FROM ${RUNTIME_IMAGE} AS runtime
COPY --from=build /out/layers /layers
COPY LICENSE /LICENSE
USER 1001:1001
LABEL org.opencontainers.image.title="Layers appview" \
      org.opencontainers.image.description="Makes linguistic annotation on the AT Protocol findable" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/layers-pub/layers-appview"
ENTRYPOINT ["/layers"]

FROM runtime AS indexer
EXPOSE 9090
CMD ["indexer"]

FROM runtime AS api
EXPOSE 3000 9090
CMD ["api"]
