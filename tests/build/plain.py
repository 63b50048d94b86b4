"""Code in both plain styles, tricky to tell apart, and functions as people write them for Kapso."""

from __future__ import annotations

SCRIPTS = [
    "async function handler(request, env) { return new Response('x'); }",
    "const handler = async (request, env) => new Response('x');",
    "let handler = function (request) { return new Response('x') }",
    "var handler = async request => new Response('x')",
    "// export default nothing\nfunction handler(r) { return new Response(`export default ${r.url}`) }",
    "/* module.exports = 1 */ function handler() { return new Response('require(1)'); }",
    "const re = /export default [/]/; const half = 4 / 2 / 1;\nfunction handler() { return new Response(re.source) }",
    "class A { static #n = 1; static { A.m = 2 } #p() {} has(o) { return #p in o } }\nfunction handler() { return new A() }",
    "const n = 1_000n ** 2n; let a = null; a ??= n?.x?.[0]?.(1) ?? 2;\nfunction handler() { return a }",
    "#!/usr/bin/env node\n'use strict'\nfunction handler() {}",
    "const exports_ = {}; exports_.a = 1; function handler() {}",
    "async function handler(r) { for await (const c of r.body) { if (c) continue } return tag`a${1}` }",
    "const { a: { b = [1, 2] } = {}, ...rest } = {}; function handler(x, y,) { return { ...rest, async *[b]() {} } }",
]
MODULES = [
    "export default { async fetch(request, env, ctx) { return new Response('x') } }",
    "export default async function (request, env) { return new Response('x') }",
    "export default (request) => new Response('x')",
    "const worker = { fetch() {} }; export default worker",
    "function handler() {}\nexport { handler as default }",
    "function handler() {}\nexport default handler",
    "export const helper = 1; export default class { fetch() {} }",
]

WRITTEN_BY_PEOPLE = {
    "check-stock/index.js": """\
async function handler(request, env) {
  try {
    const body = await request.json();
    const { execution_context } = body;
    const vars = (execution_context && execution_context.vars) || {};
    const sku = vars.sku || body.sku;

    if (!sku) {
      return new Response(JSON.stringify({ error: 'Missing sku' }), {
        status: 400,
        headers: { 'Content-Type': 'application/json' }
      });
    }

    const res = await fetch(`https://inventory.example.com/items/${encodeURIComponent(sku)}`, {
      headers: { Authorization: `Bearer ${env.INVENTORY_TOKEN}` }
    });
    const data = await res.json();
    return new Response(JSON.stringify({ vars: { in_stock: data.qty > 0, qty: data.qty } }), {
      headers: { 'Content-Type': 'application/json' }
    });
  } catch (err) {
    console.error('check-stock failed', err);
    return new Response(JSON.stringify({ error: err.message }), { status: 500 });
  }
}
""",
    "decide-route/index.js": """\
/**
 * Decide node. module.exports = handler would not work here, and neither would `import x from 'y'`.
 */
const BUSINESS_HOURS = { start: 8, end: 18 }

async function handler(request) {
  const { available_edges = [] } = await request.json()
  const hour = new Date().getUTCHours() - 5
  const open = hour >= BUSINESS_HOURS.start && hour < BUSINESS_HOURS.end
  const next_edge = open ? 'open' : 'closed'
  return new Response(JSON.stringify({ next_edge: available_edges.includes(next_edge) ? next_edge : available_edges[0] }))
}
""",
    "lib-in-one-file/index.js": """\
// ---- pasted from shared/format.js: keep in sync! ----
function formatCOP(n) { return '$' + Math.round(n).toString().replace(/\\B(?=(\\d{3})+(?!\\d))/g, '.'); }
// ------------------------------------------------------

const handler = async (request, env) => {
  const { items = [] } = await request.json();
  const total = items.reduce((sum, i) => sum + i.price * (i.quantity ?? 1), 0);
  await env.KV.put('last_total', String(total), { expirationTtl: 60 * 60 });
  return Response.json({ total, text: `Total: ${formatCOP(total)} \U0001f389 ¡gracias!` });
};

if (typeof module !== 'undefined') { module.exports = { handler, formatCOP }; } // for the tests
""",
    "windows/index.js": "\ufeff'use strict';\r\n\r\nvar handler = function (r) {\r\n\treturn new Response('ok');\r\n}\r\n",
    "worker-style/index.js": """\
addEventListener;
async function handler(request, env) {
  const url = new URL(request.url);
  const mode = url.searchParams.get("hub.mode");
  if (mode === "subscribe" && url.searchParams.get("hub.verify_token") === env.VERIFY_TOKEN) {
    return new Response(url.searchParams.get("hub.challenge"));
  }
  class Signature { static #secret; static { this.#secret = null; } static of(x) { return x?.[0]?.(1) ?? this.#secret } }
  return new Response(null, { status: Signature.of([() => 200]) === 200 ? 200 : 403 });
}
""",
}
"""By path, in the layout that the Kapso CLI writes."""
