// An agent's tool: prices what a customer asks for, so that the model never does arithmetic.
//
// Its input: {"items": [{"name": "Tea", "cents": 450, "quantity": 2}], "currency": "USD"}

import { isRecord, readCall, refuse } from "./lib/answers";
import { type Currency, format, isCurrency } from "./lib/money";

interface Item {
  name: string;
  cents: number;
  quantity: number;
}

interface Input {
  items: Item[];
  currency: Currency;
}

const MOST_ITEMS = 50;

export default async function handler(request: Request): Promise<Response> {
  const { input = {} } = await readCall<AgentToolCall<Input>>(request);
  const { items, currency } = input;
  if (!isCurrency(currency)) {
    return refuse("`currency` is not one that we know");
  }
  if (!Array.isArray(items) || items.length === 0 || items.length > MOST_ITEMS || !items.every(isItem)) {
    return refuse(`\`items\` must be 1 to ${MOST_ITEMS} of {name, cents, quantity}`);
  }
  const lines = items.map(({ name, cents, quantity }) => `${quantity} × ${name}: ${format(cents * quantity, currency)}`);
  const total = items.reduce((sum, item) => sum + item.cents * item.quantity, 0);
  return Response.json({ total_cents: total, text: [...lines, `Total: ${format(total, currency)}`].join("\n") });
}

function isItem(value: unknown): value is Item {
  if (!isRecord(value)) {
    return false;
  }
  const { name, cents, quantity } = value;
  return typeof name === "string" && isCount(cents, 0) && isCount(quantity, 1);
}

function isCount(value: unknown, least: number): boolean {
  return Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= 1_000_000_000;
}
