/**
 * `/health/live` and `/health/ready`, open to all. Live: the process answers. Ready: traffic may
 * come; if not, every reason is named and the status is 503.
 */
import type { HttpContext } from "./services.ts";

const HEADERS = { "content-type": "application/json", "cache-control": "no-store" };

/** Answers as long as the process can. */
export function liveResponse(): Response {
  return new Response('{"status":"live"}', { headers: HEADERS });
}

/** Whether traffic may come. */
export function readyResponse({ gateway, stopping }: HttpContext): Response {
  const { ready, reasons, warnings } = gateway.readiness();
  const all = stopping.aborted
    ? [...reasons, { code: "stopping", detail: "the server is stopping" }]
    : reasons;
  const isReady = ready && !stopping.aborted;
  const body = JSON.stringify({ status: isReady ? "ready" : "not-ready", reasons: all, warnings });
  return new Response(body, { status: isReady ? 200 : 503, headers: HEADERS });
}
