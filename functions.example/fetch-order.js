// Asks another service for an order, as one should: with a deadline, one retry where it can help, and an answer that says what
// went wrong without giving away how the service is reached.
//
// Send {"orderId": "A-1042"}. Its secrets: SHOP_URL (https://…) and SHOP_TOKEN.

const DEADLINE_MS = 4000;
const ATTEMPTS = 2;
const PAUSE_MS = 250;

export default async function handler(request, env) {
  if (!env.SHOP_URL || !env.SHOP_TOKEN) {
    return Response.json({ error: "the secrets SHOP_URL and SHOP_TOKEN are not set" }, { status: 503 });
  }
  const input = await request.json().catch(() => null);
  const orderId = input?.orderId;
  if (typeof orderId !== "string" || !/^[A-Za-z0-9-]{1,40}$/.test(orderId)) {
    return Response.json({ error: "`orderId` must be letters, digits and hyphens" }, { status: 422 });
  }
  const url = `${env.SHOP_URL.replace(/\/+$/, "")}/orders/${encodeURIComponent(orderId)}`;
  const outcome = await ask(url, env.SHOP_TOKEN);
  if (outcome.failure) {
    console.error(`order ${orderId}: ${outcome.failure}`);
    return Response.json({ error: "the shop does not answer", retryable: true }, { status: 502 });
  }
  if (outcome.status === 404) {
    return Response.json({ found: false, orderId });
  }
  if (outcome.status !== 200) {
    return Response.json({ error: `the shop answered ${outcome.status}`, retryable: false }, { status: 502 });
  }
  const { status, total, eta } = outcome.order;
  return Response.json({ found: true, orderId, status: status ?? "unknown", total: total ?? null, eta: eta ?? null });
}

// A GET may be repeated: nothing happens twice. What is worth a repeat: no answer, 429 and 5xx.
async function ask(url, token) {
  let failure = "";
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    try {
      const response = await fetch(url, {
        headers: { Authorization: `Bearer ${token}`, Accept: "application/json" },
        redirect: "manual", // a redirect would carry the token to wherever it leads
        signal: AbortSignal.timeout(DEADLINE_MS),
      });
      if (response.status !== 429 && response.status < 500) {
        return { status: response.status, order: response.status === 200 ? await response.json() : null };
      }
      failure = `status ${response.status}`;
    } catch (error) {
      failure = error instanceof Error ? error.name : "unknown error";
    }
    if (attempt < ATTEMPTS) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
  return { failure };
}
