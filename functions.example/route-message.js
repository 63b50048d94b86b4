// A workflow's decide node: reads the last message and names the next step. It answers {"next_edge": "…"}; the edge labels of the
// workflow are the keys of ROUTES, and `human` for everything that no rule is sure of.

const ROUTES = {
  order_status: ["where is my order", "tracking", "delivery", "shipped", "pedido", "envío"],
  returns: ["return", "refund", "exchange", "devolución", "reembolso"],
  opening_hours: ["open", "opening hours", "closed", "horario", "abierto"],
};
const FALLBACK = "human";

async function handler(request) {
  const input = await request.json().catch(() => ({}));
  const text = normal(lastMessage(input));
  const hits = Object.keys(ROUTES).filter((edge) => ROUTES[edge].some((phrase) => mentions(text, normal(phrase))));
  const edge = hits.length === 1 ? hits[0] : FALLBACK;
  return Response.json({ next_edge: edge, matched: hits });
}

function lastMessage(input) {
  const context = input?.execution_context ?? input ?? {};
  const candidates = [context.vars?.last_user_input, context.last_user_input, context.message?.text, context.message];
  return candidates.find((value) => typeof value === "string") ?? "";
}

// Lower case, without accents: people write "envio" and "ENVÍO".
function normal(text) {
  return text.slice(0, 2000).toLowerCase().normalize("NFD").replace(/\p{Diacritic}/gu, "");
}

// Whole words only: "open" is not in "opened by mistake".
function mentions(text, phrase) {
  return ` ${text.replace(/[^\p{L}\p{N}]+/gu, " ")} `.includes(` ${phrase} `);
}
