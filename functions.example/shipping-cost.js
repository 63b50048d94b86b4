// Works out what shipping costs: business rules in one place, with the reason for each line.
//
// Send {"country": "DE", "weightGrams": 1200, "orderCents": 4500, "express": false}. All money is in cents: fractions of a cent
// do not exist, and floating point would invent them.

const ZONES = {
  home: { countries: ["CO"], baseCents: 500, perKiloCents: 100 },
  near: { countries: ["AR", "BR", "CL", "EC", "MX", "PE", "UY"], baseCents: 1200, perKiloCents: 350 },
  far: { countries: [], baseCents: 2500, perKiloCents: 900 }, // everywhere else
};
const FREE_FROM_CENTS = 15000;
const HEAVIEST_GRAMS = 30000;
const EXPRESS_FACTOR_PERCENT = 180;

async function handler(request) {
  let order;
  try {
    order = await request.json();
  } catch {
    return Response.json({ error: "the body is not JSON" }, { status: 400 });
  }
  const problems = check(order);
  if (problems.length > 0) {
    return Response.json({ error: problems.join("; ") }, { status: 422 });
  }
  if (order.weightGrams > HEAVIEST_GRAMS) {
    return Response.json({ ships: false, reason: `parcels above ${HEAVIEST_GRAMS / 1000} kg go by freight` });
  }
  return Response.json({ ships: true, currency: "USD", ...cost(order) });
}

function check(order) {
  if (order === null || typeof order !== "object" || Array.isArray(order)) {
    return ["the order must be an object"];
  }
  const problems = [];
  if (!/^[A-Z]{2}$/.test(order.country ?? "")) {
    problems.push("`country` must be two capital letters");
  }
  if (!Number.isInteger(order.weightGrams) || order.weightGrams <= 0) {
    problems.push("`weightGrams` must be a whole number above 0");
  }
  if (!Number.isInteger(order.orderCents) || order.orderCents < 0) {
    problems.push("`orderCents` must be a whole number");
  }
  if (order.express !== undefined && typeof order.express !== "boolean") {
    problems.push("`express` must be true or false");
  }
  return problems;
}

function cost(order) {
  const zoneName = Object.keys(ZONES).find((name) => ZONES[name].countries.includes(order.country)) ?? "far";
  const zone = ZONES[zoneName];
  const kilos = Math.ceil(order.weightGrams / 1000);
  const lines = [
    { why: `base, zone ${zoneName}`, cents: zone.baseCents },
    { why: `${kilos} kg`, cents: kilos * zone.perKiloCents },
  ];
  let total = lines.reduce((sum, line) => sum + line.cents, 0);
  if (order.express) {
    const extra = Math.round((total * (EXPRESS_FACTOR_PERCENT - 100)) / 100);
    lines.push({ why: "express", cents: extra });
    total += extra;
  } else if (zoneName === "home" && order.orderCents >= FREE_FROM_CENTS) {
    lines.push({ why: `free from ${FREE_FROM_CENTS / 100} USD`, cents: -total });
    total = 0;
  }
  return { totalCents: total, lines };
}
