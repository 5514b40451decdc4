/** What fan-out is compared with: Bun's own `publish`, and a bare loop of corked sends. */
const PER_TURN = 16;
const text = (length: number): string => "x".repeat(length);

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  async fetch(request, bun) {
    const url = new URL(request.url);
    if (url.pathname === "/socket" && bun.upgrade(request, { data: undefined })) return undefined;
    const bytes = Number(url.searchParams.get("bytes"));
    const count = Number(url.searchParams.get("count"));
    for (let sent = 0; sent < count; sent += PER_TURN) {
      for (let index = sent; index < Math.min(sent + PER_TURN, count); index++) {
        server.publish("all", text(bytes));
      }
      await new Promise(setImmediate);
    }
    return new Response("done");
  },
  websocket: {
    backpressureLimit: 1024 ** 3,
    open(socket) {
      socket.subscribe("all");
      socket.send("hello");
    },
    message(socket, data) {
      const { count = 0, bytes = 0 } = JSON.parse(String(data)) as {
        count?: number;
        bytes?: number;
      };
      const frame = text(bytes);
      for (let sent = 0; sent < count; sent += 256) {
        socket.cork(() => {
          for (let index = sent; index < Math.min(sent + 256, count); index++) socket.send(frame);
        });
      }
    },
  },
});
