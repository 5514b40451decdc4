/**
 * The HTTP server: hooks, publish and the socket straight from Bun, everything else by one Hono
 * app per listener. Who may call what is checked here, from the table of calls, before a handler
 * runs; what a handler throws becomes a problem document here.
 */
import type { Server } from "bun";
import { Hono } from "hono";
import { errorText, InvalidError } from "../errors.ts";
import { idleTimeoutS, readStepsOfTurn, serverBodyBytesMax, stopTimeoutMs } from "../limits.ts";
import { type Files, systemFiles } from "../rules/store/files.ts";
import type { Principal } from "../rules/store/roles.ts";
import { PreviewSlots } from "./admin/rehearse.ts";
import { callerOf, requireRole, ticketCaller, ticketIn } from "./auth.ts";
import { Callers } from "./callers.ts";
import { ClientCounts, parseClientLimits } from "./client-limits.ts";
import { type Endpoint, endpointsOf, methodsAt } from "./endpoints.ts";
import { type Call, HANDLERS } from "./handlers.ts";
import { hookHandler } from "./hooks.ts";
import { Origins, withHeaders } from "./origins.ts";
import { failureResponse, problemResponse } from "./problem.ts";
import { Proxies } from "./proxies.ts";
import { ReadTurns } from "./read-turns.ts";
import { publishHandler } from "./publish.ts";
import type { HttpConfig, HttpContext, HttpServices } from "./services.ts";
import { type SocketData, SocketHub } from "./socket.ts";
import { Tickets } from "./tickets.ts";

/** A server that answers. */
export interface HttpServer {
  /** Where it answers, without a slash at the end. */
  readonly url: string;
  /** Where administration answers: the same, unless it has its own listener. */
  readonly adminUrl: string;
  /** Takes nothing more, ends waits and sockets (1012), finishes what is under way. Call once. */
  stop(): Promise<void>;
}

type Side = "all" | "public" | "admin";
type Bindings = { Bindings: { server: Server<SocketData> } };

/**
 * Begins to listen.
 * @throws InvalidError the address can't be listened on, or the certificate can't be read.
 */
export async function startHttp(
  services: HttpServices,
  files: Pick<Files, "read"> = systemFiles,
): Promise<HttpServer> {
  const stopping = new AbortController();
  const { config } = services;
  const origins = new Origins(config.origins, config.publicUrl);
  const context = contextOf(services, stopping.signal);
  const hasAdmin = config.adminHost !== null || config.adminPort !== null;
  const hub = new SocketHub(context);
  const servers: Server<SocketData>[] = [];
  const stop = async (): Promise<void> => {
    stopping.abort();
    await hub.stop();
    await Promise.all(servers.map((server) => stopServer(server, services)));
  };
  try {
    const tls = await tlsOf(config, files);
    const listener = { context, hub, origins, tls };
    const { host: hostname, port } = config;
    const side = hasAdmin ? "public" : "all";
    servers.push(listen(listener, { side, hostname, port }));
    if (hasAdmin) {
      const adminHost = config.adminHost ?? hostname;
      const adminPort = config.adminPort ?? port + 1;
      servers.push(listen(listener, { side: "admin", hostname: adminHost, port: adminPort }));
    }
  } catch (error) {
    await stop();
    throw error;
  }
  const [main, admin = main] = servers;
  return { url: urlOf(main), adminUrl: urlOf(admin), stop };
}

function contextOf(services: HttpServices, stopping: AbortSignal): HttpContext {
  const { config, clock, tokens, gateway, resolve, fetch } = services;
  const definitions = () => gateway.definitions();
  return {
    ...services,
    stopping,
    previews: new PreviewSlots(),
    callers: new Callers({ tokens, definitions, resolve, clock, fetch }),
    tickets: new Tickets(clock),
    turns: new ReadTurns(readStepsOfTurn),
    clients: new ClientCounts(parseClientLimits(config.clientLimits), clock),
    proxies: new Proxies(config.trustProxies),
    startedAtMs: clock.nowMs(),
  };
}

interface Listener {
  readonly context: HttpContext;
  readonly hub: SocketHub;
  readonly origins: Origins;
  readonly tls: { readonly cert: string; readonly key: string } | null;
}

function listen(
  { context, hub, origins, tls }: Listener,
  address: { readonly side: Side; readonly hostname: string; readonly port: number },
): Server<SocketData> {
  const { side, hostname, port } = address;
  const app = buildApp(context, hub, side);
  const takesMessages = side !== "admin";
  const options = {
    hostname,
    port,
    idleTimeout: idleTimeoutS,
    maxRequestBodySize: serverBodyBytesMax,
    ...(tls === null ? {} : { tls }),
    routes: takesMessages ? messageRoutes(context, origins) : {},
    fetch: (request: Request, server: Server<SocketData>) => {
      const headers = origins.admit(request);
      const isSocket = takesMessages && isSocketPath(request.url) && request.method === "GET";
      if (isSocket) return hub.upgrade(request, server);
      if (headers === null) return app.fetch(request, { server });
      return crossing(request, { app, server, origins, headers });
    },
    error: (error: Error) => failureResponse(error, context.telemetry),
    websocket: hub.handlers(),
  };
  try {
    return Bun.serve<SocketData>(options);
  } catch (error) {
    const place = `${hostname}:${port}`;
    throw new InvalidError(`can't listen on ${place}: ${errorText(error)}`, [], { cause: error });
  }
}

/** A call from a page of another origin, which may. */
async function crossing(
  request: Request,
  to: {
    readonly app: Hono<Bindings>;
    readonly server: Server<SocketData>;
    readonly origins: Origins;
    readonly headers: Readonly<Record<string, string>>;
  },
): Promise<Response> {
  const { app, server, origins, headers } = to;
  const asked = origins.preflight(request, headers);
  return asked ?? withHeaders(await app.fetch(request, { server }), headers);
}

/** What Bun routes by itself: the paths where each microsecond counts. */
function messageRoutes(context: HttpContext, origins: Origins) {
  const publish = publishHandler(context);
  const fromPage: typeof publish = async (request, server) => {
    const headers = origins.admit(request);
    return withHeaders(await publish(request, server), headers);
  };
  return {
    "/hooks/:hook": hookHandler(context),
    "/streams/:stream/messages": {
      POST: (...call: Parameters<typeof publish>) => {
        return call[0].headers.get("origin") === null ? publish(...call) : fromPage(...call);
      },
    },
  };
}

function isSocketPath(url: string): boolean {
  const start = url.indexOf("/", url.indexOf("//") + 2);
  const path = url.slice(start);
  return path === "/socket" || path.startsWith("/socket?");
}

/** The app of one listener. Tests compare its routes with the table of calls. */
export function buildApp(context: HttpContext, hub: SocketHub, side: Side): Hono<Bindings> {
  const app = new Hono<Bindings>();
  const endpoints = endpointsOf(side);
  for (const endpoint of endpoints) {
    if (endpoint.isFast === true) continue;
    app.on(endpoint.method, endpoint.path, async (c) => {
      const request = c.req.raw;
      const principal = await admitted(endpoint, request, context);
      const call: Call = {
        request,
        server: c.env.server,
        params: c.req.param(),
        principal,
        context,
        hub,
      };
      return await handlerOf(endpoint)(call);
    });
  }
  app.onError((error) => failureResponse(error, context.telemetry));
  app.notFound((c) => unmatched(c.req.method, c.req.path, endpoints));
  return app;
}

function handlerOf({ method, path }: Endpoint) {
  const handler = HANDLERS[`${method} ${path}`];
  if (handler === undefined) throw new RangeError(`no handler for ${method} ${path}`);
  return handler;
}

/** The caller, when the call needs one. @throws UnauthorizedError, ForbiddenError */
async function admitted(
  { access, takesTicket }: Endpoint,
  request: Request,
  { callers, tickets }: HttpContext,
): Promise<Principal | null> {
  if (access === "open") return null;
  const ticket = takesTicket === true ? ticketIn(request.url) : null;
  const principal =
    ticket === null ? await callerOf(request, callers) : ticketCaller(ticket, tickets, callers);
  if (access !== "token") requireRole(principal, access);
  return principal;
}

/** Another method than the path takes, or a path that is not there. */
function unmatched(method: string, path: string, endpoints: readonly Endpoint[]): Response {
  const methods = methodsAt(path, endpoints);
  if (methods.length === 0) {
    return problemResponse({ status: 404, code: "not-found", detail: "there is nothing here" });
  }
  const allow = [...new Set([...methods, ...(methods.includes("GET") ? ["HEAD"] : [])])].join(", ");
  const detail = `${method} is not taken here; there is ${allow}`;
  return problemResponse({ status: 405, code: "method-not-allowed", detail, headers: { allow } });
}

async function tlsOf(
  { tlsCert, tlsKey }: HttpConfig,
  files: Pick<Files, "read">,
): Promise<Listener["tls"]> {
  if (tlsCert === null && tlsKey === null) return null;
  if (tlsCert === null || tlsKey === null) {
    throw new InvalidError("ISTHMUS_TLS_CERT and ISTHMUS_TLS_KEY go together: give both or none");
  }
  const [cert, key] = await Promise.all([files.read(tlsCert), files.read(tlsKey)]);
  if (cert === null) throw new InvalidError(`ISTHMUS_TLS_CERT: there is no file ${tlsCert}`);
  if (key === null) throw new InvalidError(`ISTHMUS_TLS_KEY: there is no file ${tlsKey}`);
  return { cert, key };
}

/** Lets requests under way finish, but not for ever. */
async function stopServer(server: Server<SocketData>, { clock }: HttpServices): Promise<void> {
  const done = new AbortController();
  const finished = server.stop().then(() => done.abort());
  await Promise.race([finished, clock.sleep(stopTimeoutMs, done.signal)]);
  await server.stop(true);
}

function urlOf(server: Server<SocketData> | undefined): string {
  return server === undefined ? "" : server.url.href.replace(/\/+$/, "");
}
