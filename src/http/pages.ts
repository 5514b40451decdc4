/**
 * The two pages, `/` and `/docs`: plain, true and complete in themselves. No script, nothing from
 * elsewhere, and a policy that would allow neither.
 */
import { ENDPOINTS, type Endpoint } from "./endpoints.ts";

const STYLE = `
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --link: #0a6ac2; }
@media (prefers-color-scheme: dark) { :root { --link: #6cb8ff; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
code, pre { font: 0.9em/1.5 ui-monospace, monospace; }
pre { background: var(--soft); padding: 0.75rem; overflow-x: auto; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.6rem 0.35rem 0; border-bottom: 1px solid var(--line); }
td code { overflow-wrap: anywhere; }
a { color: var(--link); }
`;

const STYLE_HASH = new Bun.CryptoHasher("sha256").update(STYLE).digest("base64");

const HEADERS = {
  "content-type": "text/html; charset=utf-8",
  "cache-control": "no-store",
  "content-security-policy": `default-src 'none'; style-src 'sha256-${STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
};

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text within a page. */
export function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => ESCAPES[character] ?? "");
}

function page(title: string, body: string): Response {
  const html = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title><style>${STYLE}</style></head>
<body>${body}</body></html>
`;
  return new Response(html, { headers: HEADERS });
}

/** What this is, and where to go on. `url` is where messages are taken. */
export function homePage(version: string, url: string): Response {
  const at = escapeHtml(url);
  return page(
    "Isthmus",
    `<main><h1>Isthmus ${escapeHtml(version)}</h1>
<p>A gateway that takes messages in over HTTP, WebSocket, Kafka, AMQP and MQTT, keeps each in a
durable log before it says yes, and sends them on by rules.</p>
<h2>Try it</h2>
<p>The admin token is in <code>admin-token</code> in the data folder, unless the settings name one.</p>
<pre>curl -X POST ${at}/streams/hello/messages -H "Authorization: Bearer $TOKEN" -d 'hello'
curl "${at}/streams/hello/messages?from=earliest" -H "Authorization: Bearer $TOKEN"</pre>
<h2>Go on</h2>
<ul>
<li><a href="/docs">Every call</a>, and the same as <a href="/openapi.json">OpenAPI</a></li>
<li><a href="/health/ready">Whether it is ready</a>, with reasons</li>
<li><code>isthmus get routes</code> shows what runs; <code>/metrics</code> counts it (a token of the role viewer)</li>
</ul></main>`,
  );
}

/** Every call, from the table that they are served by. */
export function docsPage(version: string): Response {
  const rows = ENDPOINTS.map(rowOf).join("\n");
  return page(
    "Isthmus: every call",
    `<main><h1>Isthmus ${escapeHtml(version)}: every call</h1>
<p><a href="/">Start</a> · <a href="/openapi.json">OpenAPI 3.1</a></p>
<p>Send a token as <code>Authorization: Bearer TOKEN</code>. Errors are
<code>application/problem+json</code> with a stable <code>code</code>.</p>
<table><thead><tr><th>Call</th><th>What it does</th><th>Who</th><th>Answers</th></tr></thead>
<tbody>
${rows}
</tbody></table></main>`,
  );
}

function rowOf({
  method,
  path,
  summary,
  access,
  query = [],
  headers = [],
  answers,
  problems = [],
}: Endpoint): string {
  const takes = [...query.map((name) => `?${name}=`), ...headers]
    .map((name) => `<code>${escapeHtml(name)}</code>`)
    .join(" ");
  const who = { open: "anyone", token: "a token" }[access as "open" | "token"] ?? access;
  const statuses = [...Object.keys(answers), ...problems].join(" ");
  return `<tr><td><code>${method} ${escapeHtml(path)}</code></td><td>${escapeHtml(summary)}${
    takes === "" ? "" : `<br>${takes}`
  }</td><td>${who}</td><td>${statuses}</td></tr>`;
}
