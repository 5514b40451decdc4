/**
 * TLS in front of a plain broker, for tests of bridges that connect with TLS. The certificate is
 * for `localhost` and 127.0.0.1, signed by itself, good for a hundred years, and protects nothing.
 */
import { connect } from "node:net";
import { createServer } from "node:tls";
import { freePort } from "../temporary.ts";

export const testCertificate = `-----BEGIN CERTIFICATE-----
MIIBozCCAUmgAwIBAgIUOw9Q00rR9OePwyLPXgTwG+yQGL0wCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNaXN0aG11cyB0ZXN0czAgFw0yNjExMjMxOTU5NTlaGA8yMTI2
MTAzMDE5NTk1OVowGDEWMBQGA1UEAwwNaXN0aG11cyB0ZXN0czBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABJpd2eHctnLd554lzW5j/ltblQfOzYmSoWC5025wQTSk
iRfwhCjXA7RyBtLyFNOu7bMDdNTL//Zgsj4dEo/Jz7yjbzBtMB0GA1UdDgQWBBSl
yGg3jRiK4oa6q6NGRH2tDvdQRDAfBgNVHSMEGDAWgBSlyGg3jRiK4oa6q6NGRH2t
DvdQRDAPBgNVHRMBAf8EBTADAQH/MBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAA
ATAKBggqhkjOPQQDAgNIADBFAiB1vgXl/rUXKK7aAJle2D+8JrsmPjIuELjUG4lX
QTbJ8AIhAOpH7EAEUcrRG9lTr/xJn47szmal+pyoXb86NUZB6SfV
-----END CERTIFICATE-----`;

export const testKey = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgCRMXQQATgaCZTyc7
ZYDB1e+o+sX/iKMS+Kf5+9tNT6uhRANCAASaXdnh3LZy3eeeJc1uY/5bW5UHzs2J
kqFgudNucEE0pIkX8IQo1wO0cgbS8hTTru2zA3TUy//2YLI+HRKPyc+8
-----END PRIVATE KEY-----`;

/** A listening port of the loopback that speaks TLS and passes everything on to a plain port. */
export interface TlsFront extends AsyncDisposable {
  readonly port: number;
}

export async function tlsFront(upstreamPort: number): Promise<TlsFront> {
  const port = await freePort();
  const server = createServer({ cert: testCertificate, key: testKey }, (client) => {
    const upstream = connect({ host: "127.0.0.1", port: upstreamPort });
    for (const [from, to] of [[client, upstream] as const, [upstream, client] as const]) {
      from.on("data", (bytes: Buffer) => to.write(bytes));
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
    }
  });
  // A client that refuses the certificate is not this server's trouble.
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", () => resolve()));
  return {
    port,
    [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
