/** Values as YAML text that our own reader takes back: no anchors, no folded lines. */

/** The YAML of a value; ends with a newline. The library is loaded only when it is needed. */
export async function yamlText(value: unknown): Promise<string> {
  const { stringify } = await import("yaml");
  return stringify(value, { aliasDuplicateObjects: false, lineWidth: 0, version: "1.2" });
}
