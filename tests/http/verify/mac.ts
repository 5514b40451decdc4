/** HMAC-SHA256 by WebCrypto: another implementation than the one under test. */
export async function hmacText(key: string, text: string): Promise<string> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const imported = await crypto.subtle.importKey("raw", Buffer.from(key), algorithm, false, [
    "sign",
  ]);
  return Buffer.from(await crypto.subtle.sign("HMAC", imported, Buffer.from(text))).toString("hex");
}
