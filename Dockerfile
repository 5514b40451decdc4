FROM oven/bun:1.4.5-slim AS dependencies
WORKDIR /app
COPY package.json bun.lock bunfig.toml ./
RUN bun install --frozen-lockfile --production

FROM oven/bun:1.4.5-slim
LABEL org.opencontainers.image.title="Isthmus" org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY package.json bunfig.toml ./
COPY src src
COPY bridges bridges
COPY schema schema
ENV ISTHMUS_DATA=/data ISTHMUS_HOST=0.0.0.0
RUN mkdir /data && chown bun:bun /data
USER bun
VOLUME /data
EXPOSE 8420
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["bun", "-e", "process.exit((await fetch('http://127.0.0.1:8420/health/ready')).ok ? 0 : 1)"]
CMD ["bun", "src/cli/main.ts", "serve"]
