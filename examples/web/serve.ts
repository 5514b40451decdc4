/**
 * Serves the example page: `bun examples/web/serve.ts [PORT]`, then open the address it prints
 * with a token in it. The page comes from another origin than the gateway, which has to be told to
 * let it in: `ISTHMUS_ORIGINS=http://127.0.0.1:8421`.
 */
const port = Number(process.argv[2] ?? 8421);
const built = await Bun.build({
  entrypoints: [`${import.meta.dir}/page.ts`],
  minify: true,
  target: "browser",
});
const script = await (built.outputs[0]?.text() ?? "");
const page = await Bun.file(`${import.meta.dir}/index.html`).text();

const server = Bun.serve({
  hostname: "127.0.0.1",
  port,
  fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/") {
      return new Response(page, { headers: { "content-type": "text/html; charset=utf-8" } });
    }
    if (pathname !== "/page.js") return new Response("not found", { status: 404 });
    return new Response(script, { headers: { "content-type": "text/javascript; charset=utf-8" } });
  },
});
process.stdout.write(`${server.url}#gateway=http://127.0.0.1:8420&token=TOKEN\n`);
