// Money in whole cents: fractions of a cent do not exist.

import currencies from "./currencies.json";

export type Currency = keyof typeof currencies;

export function isCurrency(code: unknown): code is Currency {
  return typeof code === "string" && Object.hasOwn(currencies, code);
}

export function format(cents: number, currency: Currency): string {
  const { symbol, decimals, point, group } = currencies[currency];
  const whole = Math.trunc(Math.abs(cents) / 100);
  const rest = String(Math.abs(cents) % 100).padStart(2, "0");
  const grouped = String(whole).replace(/\B(?=(\d{3})+$)/g, group);
  return `${cents < 0 ? "-" : ""}${symbol}${grouped}${decimals ? point + rest : ""}`;
}
