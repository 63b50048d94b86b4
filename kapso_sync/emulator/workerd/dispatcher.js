// Loads a function's code into an isolate of its own, and calls it there.
//
// A request is JSON, then the code, then the body of the call; the header `x-lengths` says where each ends. An answer is
// JSON, then the body that the function gave; `x-length` says where the JSON ends.
import { WorkerEntrypoint } from "cloudflare:workers";
import console_js from "console";
import d1_js from "d1";
import entry_js from "entry";

// The contract of a script: a `handler` at top level, and none of what Node gives a module. All of it on the first line, so that
// the code's own lines keep their numbers.
const SCRIPT_HEAD = "module.exports = (function (module, exports, require) {";
const SCRIPT_TAIL = "\n;return typeof handler === 'undefined' ? undefined : handler;\n}).call(globalThis);";

// What a function sees as `env.KV`. A binding cannot be handed to another isolate, a stub of this can.
export class KV extends WorkerEntrypoint {
  get(...given) {
    return this.env.KV.get(...given);
  }
  getWithMetadata(...given) {
    return this.env.KV.getWithMetadata(...given);
  }
  put(...given) {
    return this.env.KV.put(...given);
  }
  delete(...given) {
    return this.env.KV.delete(...given);
  }
  list(options) {
    return this.env.KV.list(options ?? {});
  }
}

// What a function sees as `env.DB`, behind the interface of d1.js.
export class DB extends WorkerEntrypoint {
  async ask(job) {
    const answer = await this.env.DB.fetch("http://db/", { method: "POST", body: job });
    return answer.text();
  }
}

const refusals = new Map();

// Answers `fetch` of a function from fixtures, and refuses everything else.
export class Outbound extends WorkerEntrypoint {
  async fetch(request) {
    const { rules, refusal, network, isolate } = this.ctx.props;
    const rule = rules.find((each) => each.method === request.method && matches(each.url, request.url));
    if (rule !== undefined) {
      const empty = [101, 204, 205, 304].includes(rule.status);
      return new Response(empty ? null : rule.body, { status: rule.status, headers: rule.headers });
    }
    if (network) return this.env.INTERNET.fetch(request);
    const text = refusal.replace("{request}", `${request.method} ${request.url}`);
    refusals.get(isolate)?.push(text);
    throw new Error(text);
  }
}

// `*` stands for any text.
function matches(pattern, url) {
  const parts = pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  const wanted = new RegExp(`^${parts.join(".*")}$`);
  return wanted.test(url) || wanted.test(url.replace(/\/$/, ""));
}

function outbound(job, ctx) {
  if (job.outbound) return { globalOutbound: ctx.exports.Outbound({ props: { ...job.outbound, isolate: job.id } }) };
  return job.network ? {} : { globalOutbound: null };
}

function workerCode(job, code, ctx) {
  const user = job.module ? { js: code } : { cjs: SCRIPT_HEAD + code + SCRIPT_TAIL };
  const entry = entry_js.replace("USER_MODULE", job.name);
  return {
    compatibilityDate: "2026-01-01",
    compatibilityFlags: ["nodejs_als"],
    mainModule: "kapso:entry.js",
    modules: { "kapso:entry.js": { js: entry }, "kapso:console.js": { js: console_js }, "kapso:d1.js": { js: d1_js }, [job.name]: user },
    ...outbound(job, ctx),
  };
}

async function act(job, code, body, env, ctx) {
  if (job.do === "check") {
    return env.LOADER.load(workerCode(job, code, ctx)).getEntrypoint().check();
  }
  const worker = env.LOADER.get(job.id, () => workerCode(job, code, ctx));
  const given = { secrets: job.secrets, kv: ctx.exports.KV({ props: {} }), db: ctx.exports.DB({ props: {} }) };
  const refused = [];
  refusals.set(job.id, refused);
  try {
    const answer = await worker.getEntrypoint().run({ ...job.call, body }, given);
    // A refusal that the function caught is said all the same.
    const unsaid = refused.filter((text) => !answer.console.some(([, line]) => line.includes(text)));
    return { ...answer, console: [...unsaid.map((text) => ["warn", text]), ...answer.console] };
  } finally {
    refusals.delete(job.id);
  }
}

export default {
  async fetch(request, env, ctx) {
    if (request.method === "GET") {
      return new Response("alive");
    }
    const [first, second] = request.headers.get("x-lengths").split(",").map(Number);
    const given = await request.arrayBuffer();
    const text = (start, end) => new TextDecoder().decode(given.slice(start, end));
    let answer;
    try {
      answer = await act(JSON.parse(text(0, first)), text(first, first + second), given.slice(first + second), env, ctx);
    } catch (error) {
      answer = { failed: String(error.message), console: [] };
    }
    const { body, ...rest } = answer;
    const json = new TextEncoder().encode(JSON.stringify(rest));
    return new Response(new Blob([json, body ?? ""]), { headers: { "x-length": String(json.byteLength) } });
  },
};
