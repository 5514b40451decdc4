/** The upper bound of the ingest bench: a bare server that reads the body and answers. */
const answer = JSON.stringify({
  id: "01900000-0000-7000-8000-000000000000",
  stream: "orders",
  partition: 0,
  offset: 0,
  duplicate: false,
  durable: "fsync",
});

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  async fetch(request) {
    await request.bytes();
    return new Response(answer, {
      status: 202,
      headers: { "content-type": "application/json" },
    });
  },
});
