// What a function sees as `env.DB`: the interface of Cloudflare's D1, over a host that runs SQLite.
// Source: https://developers.cloudflare.com/d1/worker-api/

function sent(value) {
  if (value === null || typeof value === "string") return value;
  if (typeof value === "number" && Number.isFinite(value)) return value;
  if (typeof value === "boolean") return Number(value);
  if (value instanceof ArrayBuffer) return { blob: [...new Uint8Array(value)] };
  if (ArrayBuffer.isView(value)) return { blob: [...new Uint8Array(value.buffer, value.byteOffset, value.byteLength)] };
  if (Array.isArray(value)) return { blob: value };
  throw new Error(`D1_TYPE_ERROR: Type '${typeof value}' not supported for value '${value}'`);
}

function objects(result) {
  const rows = result.rows.map((row) => Object.fromEntries(result.columns.map((name, at) => [name, row[at]])));
  return { success: true, meta: result.meta, results: rows };
}

class Statement {
  constructor(ask, sql, values = []) {
    Object.defineProperty(this, "ask", { value: ask });
    this.statement = sql;
    this.params = values;
  }

  bind(...values) {
    return new Statement(this.ask, this.statement, values.map(sent));
  }

  async query() {
    const [result] = await this.ask({ do: "query", statements: [[this.statement, this.params]] });
    return result;
  }

  async all() {
    return objects(await this.query());
  }

  run() {
    return this.all();
  }

  async first(column) {
    const [row] = (await this.all()).results;
    if (row === undefined) return null;
    if (column === undefined) return row;
    if (!(column in row)) throw new Error(`D1_COLUMN_NOTFOUND: Column not found (${column})`);
    return row[column];
  }

  async raw(options) {
    const result = await this.query();
    return options?.columnNames ? [result.columns, ...result.rows] : result.rows;
  }
}

export function database(stub) {
  const ask = async (job) => {
    const answer = JSON.parse(await stub.ask(JSON.stringify(job)));
    if (answer.error !== undefined) throw new Error(`D1_ERROR: ${answer.error}`);
    return answer.results;
  };
  return {
    prepare: (sql) => new Statement(ask, String(sql)),
    batch: async (statements) => {
      const results = await ask({ do: "batch", statements: statements.map((item) => [item.statement, item.params]) });
      return results.map(objects);
    },
    exec: async (sql) => {
      const [result] = await ask({ do: "exec", statements: [[String(sql), []]] });
      return { count: result.count, duration: result.meta.duration };
    },
  };
}
