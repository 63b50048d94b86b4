// Keeps what is written to the console, by call: what code writes while it starts goes to the first call.
import { AsyncLocalStorage } from "node:async_hooks";

const MOST_LINES = 200;
const LONGEST = 4000;

const current = new AsyncLocalStorage();
let early = [];

function shown(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return value.stack || String(value);
  if (typeof value !== "object" || value === null) return String(value);
  try {
    return JSON.stringify(value, (_, item) => (typeof item === "bigint" ? `${item}n` : item));
  } catch {
    return Object.prototype.toString.call(value);
  }
}

function write(lines, level, values) {
  if (lines.length < MOST_LINES) {
    const text = values.map(shown).join(" ");
    lines.push([level, text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text]);
  } else if (lines.length === MOST_LINES) {
    lines.push(["warn", `(more than ${MOST_LINES} lines: the rest is left out)`]);
  }
}

for (const level of ["debug", "error", "info", "log", "trace", "warn"]) {
  console[level] = (...values) => write(current.getStore() ?? early, level, values);
}

export function atStart() {
  const lines = early;
  early = [];
  return lines;
}

export function recorded(work) {
  const lines = atStart();
  return current.run(lines, () => work(lines, (level, values) => write(lines, level, values)));
}
