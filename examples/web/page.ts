/**
 * The page: orders that anyone sends are shown to all, once and in order, whatever the network
 * does. What is sent while offline waits in the browser and goes out when the network is back,
 * after a reload too. The token comes in the address's fragment, which is never sent anywhere.
 */
import { connect } from "../../src/client/client.ts";

const settings = new URLSearchParams(location.hash.slice(1));
const client = connect({
  url: settings.get("gateway") ?? "http://127.0.0.1:8420",
  token: settings.get("token") ?? "",
  store: "indexeddb:orders",
  tuning: { minMs: 100 },
});

function element(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

function addLine(list: string, text: string, kind = ""): HTMLElement {
  const line = document.createElement("li");
  line.textContent = text;
  line.className = kind;
  element(list).append(line);
  return line;
}

async function send(text: string): Promise<void> {
  const line = addLine("waiting", text, "waiting");
  try {
    await client.publish("orders", { body: { text }, contentType: "application/json" });
    line.remove();
  } catch (error) {
    line.textContent = `${text}: ${error instanceof Error ? error.message : String(error)}`;
  }
}

async function show(): Promise<void> {
  const orders = client.subscribe("orders", {
    from: "earliest",
    resume: false,
    onGap: ({ from, to }) => void addLine("messages", `${to - from} orders are gone`, "gap"),
  });
  for await (const { body } of orders) {
    addLine("messages", typeof body === "string" ? textOf(body) : "no text");
  }
}

/** What a message says; one that is not from this page is shown as it is. */
function textOf(body: string): string {
  try {
    const { text } = JSON.parse(body) as { text?: unknown };
    return typeof text === "string" ? text : body;
  } catch {
    return body;
  }
}

client.onState(({ status, error }) => {
  element("state").textContent = error === null ? status : `${status}: ${error.message}`;
});
element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = element("text") as HTMLInputElement;
  const sending = send(input.value);
  input.value = "";
  sending.catch((error: unknown) => addLine("messages", String(error), "gap"));
});
show().catch((error: unknown) => addLine("messages", String(error), "gap"));
