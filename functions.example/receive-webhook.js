// Verifies a webhook and stores it.
//
// The sender signs the raw body with a shared secret: `X-Signature: sha256=<hex HMAC>`. The secret is the function's own
// secret WEBHOOK_SECRET; without it, nothing is accepted. What was verified is kept in KV for a day, under its delivery id, so
// that a delivery that is sent twice is stored once.

const LARGEST = 64 * 1024;
const KEEP_SECONDS = 24 * 60 * 60;

async function handler(request, env) {
  if (request.method !== "POST") {
    return answer(405, { error: "only POST is accepted" }, { Allow: "POST" });
  }
  if (!env.WEBHOOK_SECRET) {
    return answer(503, { error: "the secret WEBHOOK_SECRET is not set" });
  }
  const body = await request.arrayBuffer();
  if (body.byteLength > LARGEST) {
    return answer(413, { error: `the body is larger than ${LARGEST} bytes` });
  }
  if (!(await isSigned(body, request.headers.get("X-Signature"), env.WEBHOOK_SECRET))) {
    return answer(401, { error: "the signature is missing or wrong" });
  }
  let payload;
  try {
    payload = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    return answer(400, { error: "the body is not JSON" });
  }
  const id = await deliveryId(request, body);
  if (env.KV) {
    const record = JSON.stringify({ receivedAt: new Date().toISOString(), payload });
    await env.KV.put(`webhook:${id}`, record, { expirationTtl: KEEP_SECONDS });
  }
  return answer(202, { stored: Boolean(env.KV), id });
}

// crypto.subtle.verify compares in constant time: a byte-by-byte comparison would give the signature away.
async function isSigned(body, header, secret) {
  const match = /^sha256=([0-9a-f]{64})$/i.exec(header ?? "");
  if (!match) {
    return false;
  }
  const signature = Uint8Array.from(match[1].match(/../g), (pair) => parseInt(pair, 16));
  const bytes = new TextEncoder().encode(secret);
  const key = await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  return crypto.subtle.verify("HMAC", key, signature, body);
}

// The sender's id where it looks like one, else a hash of the body: the same delivery gets the same id.
async function deliveryId(request, body) {
  const given = request.headers.get("X-Delivery-Id") ?? "";
  if (/^[A-Za-z0-9-]{1,100}$/.test(given)) {
    return given;
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
  return Array.from(digest.slice(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function answer(status, value, headers = {}) {
  return Response.json(value, { status, headers });
}
