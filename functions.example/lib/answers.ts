// What both TypeScript functions need to read a call and to answer it.

export async function readCall<Call>(request: Request): Promise<Partial<Call>> {
  const body: unknown = await request.json().catch(() => null);
  return isRecord(body) ? (body as Partial<Call>) : {};
}

export function refuse(error: string): Response {
  return Response.json({ error }, { status: 422 });
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
