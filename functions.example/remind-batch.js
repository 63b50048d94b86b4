// A background job: sends reminders in small batches, and remembers in KV where it stopped. Call it every few minutes; each call
// does one batch, so that no call runs long, and a crash repeats at most one batch.
//
// KV: `reminders` holds [{"id": "…", "phone": "+57…", "text": "…"}], `reminders:next` the position. Its secrets: SEND_URL, SEND_TOKEN.

const BATCH = 20;
const PARALLEL = 5;
const DEADLINE_MS = 5000;

async function remind(request, env) {
  if (!env.KV || !env.SEND_URL || !env.SEND_TOKEN) {
    return Response.json({ error: "KV and the secrets SEND_URL and SEND_TOKEN are needed" }, { status: 503 });
  }
  const reminders = JSON.parse((await env.KV.get("reminders")) ?? "[]");
  const start = Number((await env.KV.get("reminders:next")) ?? "0");
  const batch = reminders.slice(start, start + BATCH);
  const failed = [];
  for (let index = 0; index < batch.length; index += PARALLEL) {
    const group = batch.slice(index, index + PARALLEL);
    const results = await Promise.allSettled(group.map((reminder) => send(reminder, env)));
    results.forEach((result, position) => {
      if (result.status === "rejected") {
        failed.push({ id: group[position].id, reason: String(result.reason?.message ?? result.reason) });
      }
    });
  }
  const next = start + batch.length;
  await env.KV.put("reminders:next", String(next));
  return Response.json({ sent: batch.length - failed.length, failed, next, done: next >= reminders.length });
}

// The reminder's id is the idempotency key: if this batch is repeated, nobody is reminded twice.
async function send(reminder, env) {
  const response = await fetch(env.SEND_URL, {
    method: "POST",
    headers: {
      Authorization: `Bearer ${env.SEND_TOKEN}`,
      "Content-Type": "application/json",
      "Idempotency-Key": reminder.id,
    },
    body: JSON.stringify({ to: reminder.phone, text: reminder.text }),
    redirect: "manual",
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  if (!response.ok) {
    throw new Error(`status ${response.status}`);
  }
}

export default { fetch: remind };
