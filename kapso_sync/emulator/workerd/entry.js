// What stands between the dispatcher and a function's code, in the function's own isolate.
import { WorkerEntrypoint } from "cloudflare:workers";
import { atStart, recorded } from "kapso:console.js";
import { database } from "kapso:d1.js";
import user from "USER_MODULE";

const handler = typeof user === "function" ? user : typeof user?.fetch === "function" ? user.fetch.bind(user) : undefined;
if (handler === undefined) {
  throw new TypeError("there is no handler, neither at top level nor as the default export");
}

const LATE = Symbol("late");

async function within(seconds, work) {
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, seconds * 1000, LATE)));
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function answered(call, given, ctx) {
  const bare = call.method === "GET" || call.method === "HEAD";
  const request = new Request(call.url, { method: call.method, headers: call.headers, body: bare ? undefined : call.body });
  const env = { ...given.secrets, KV: given.kv, DB: database(given.db) };
  const response = await (call.ctx ? handler(request, env, ctx) : handler(request, env));
  if (!(response instanceof Response)) {
    throw new TypeError(`the handler returned ${response === null ? "null" : typeof response}, not a Response`);
  }
  return { status: response.status, type: response.headers.get("content-type"), body: await response.arrayBuffer() };
}

export default class extends WorkerEntrypoint {
  check() {
    return { console: atStart() };
  }

  run(call, given) {
    return recorded(async (lines, write) => {
      try {
        const answer = await within(call.timeout, answered(call, given, this.ctx));
        return answer === LATE ? { late: true, console: lines } : { ...answer, console: lines };
      } catch (error) {
        write("error", [error instanceof Error ? error : `Uncaught ${String(error)}`]);
        return { thrown: error instanceof Error ? `${error.name}: ${error.message}` : String(error), console: lines };
      }
    });
  }
}
