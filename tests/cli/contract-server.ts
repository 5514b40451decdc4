/**
 * A server that answers as the contract says and as a test scripts it: for what a real gateway
 * can't be brought to do on demand (lost connections, close codes, answers of another program).
 */
import type { ServerWebSocket } from "bun";

/** A frame of the socket. */
export interface Frame {
  readonly op: string;
  readonly [member: string]: unknown;
}

/** One connection of the socket, as a test sees it. */
export interface Peer {
  /** Counts connections from 1. */
  readonly number: number;
  send(frame: Frame): void;
  close(code: number, reason?: string): void;
  /** Ends the connection without a word. */
  cut(): void;
}

/** What a test scripts. */
export interface Script {
  readonly answer?: (request: Request) => Response | Promise<Response>;
  readonly frame?: (frame: Frame, peer: Peer) => void;
}

/** A scripted server on a port of its own. */
export interface ContractServer extends AsyncDisposable {
  readonly url: string;
  /** Method, path and query of every call. */
  readonly calls: readonly string[];
}

/** Starts a server. */
export function contractServer(script: Script): ContractServer {
  const calls: string[] = [];
  const peers = new WeakMap<ServerWebSocket<undefined>, Peer>();
  let connections = 0;
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request, self) => {
      const url = new URL(request.url);
      if (url.pathname === "/socket" && script.frame !== undefined) {
        const headers = { "sec-websocket-protocol": "isthmus.v1.json" };
        if (self.upgrade(request, { data: undefined, headers })) return undefined;
      }
      calls.push(`${request.method} ${url.pathname}${url.search}`);
      if (script.answer !== undefined) return await script.answer(request);
      return problem(404, { code: "not-found", detail: "there is nothing here" });
    },
    websocket: {
      open: (socket) => {
        connections += 1;
        peers.set(socket, {
          number: connections,
          send: (frame) => socket.send(JSON.stringify(frame)),
          close: (code, reason) => socket.close(code, reason),
          cut: () => socket.terminate(),
        });
      },
      message: (socket, text) => {
        const peer = peers.get(socket);
        if (peer !== undefined) script.frame?.(JSON.parse(String(text)) as Frame, peer);
      },
    },
  });
  return {
    url: `http://127.0.0.1:${server.port}`,
    calls,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

/** A problem document (RFC 9457). */
export function problem(status: number, members: Readonly<Record<string, unknown>>): Response {
  const headers = { "content-type": "application/problem+json" };
  return new Response(JSON.stringify({ type: "about:blank", status, ...members }), {
    status,
    headers,
  });
}
