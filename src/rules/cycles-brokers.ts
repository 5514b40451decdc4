/**
 * Which bridges lead to one broker: those of a kind that share a URL. A loop is a loop under
 * whatever name it is closed.
 */
import type { BridgeDocument, Definition } from "./document.ts";

/** For each bridge the bridge whose name stands for their broker. */
export function brokersOf(
  bridges: ReadonlyMap<string, Definition<BridgeDocument>>,
): ReadonlyMap<string, string> {
  const byPlace = new Map<string, string>();
  const names = new Map<string, string>();
  for (const name of [...bridges.keys()].toSorted()) {
    const document = bridges.get(name)?.parsed;
    const places = document === undefined ? [] : placesOf(document);
    const first = places.map((place) => byPlace.get(place)).find((known) => known !== undefined);
    const broker = first ?? name;
    names.set(name, broker);
    for (const place of places) byPlace.set(place, byPlace.get(place) ?? broker);
  }
  return names;
}

/** Where a bridge connects, apart from how it logs in. */
function placesOf({ kind, config }: BridgeDocument): readonly string[] {
  const { url, urls, vhost } = Object(config) as Readonly<Record<string, unknown>>;
  const all: readonly unknown[] = Array.isArray(urls) ? urls : [url];
  return all.flatMap((one) => {
    if (typeof one !== "string") return [];
    const place = one.replace(/^[a-z0-9+.-]+:\/\//i, "").replace(/^[^/@]*@/, "");
    const within = typeof vhost === "string" ? vhost : "";
    return [`${kind} ${place.replace(/\/$/, "").toLowerCase()} ${within}`];
  });
}
