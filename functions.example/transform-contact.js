// Turns a contact, as a CRM, a spreadsheet or a form writes it, into one shape:
//   {"name": "Ada Lovelace", "phone": "+442079460000", "email": "ada@example.com", "tags": ["vip"]}
//
// Send {"contact": {...}, "countryCode": "44"}; the country code completes phone numbers that are written without one.

async function handler(request) {
  if (request.method !== "POST") {
    return Response.json({ error: "only POST is accepted" }, { status: 405, headers: { Allow: "POST" } });
  }
  let input;
  try {
    input = await request.json();
  } catch {
    return Response.json({ error: "the body is not JSON" }, { status: 400 });
  }
  const contact = input?.contact;
  if (contact === null || typeof contact !== "object" || Array.isArray(contact)) {
    return Response.json({ error: "`contact` must be an object" }, { status: 422 });
  }
  const phone = normalPhone(first(contact, ["phone", "phone_number", "mobile", "tel", "whatsapp"]), input.countryCode);
  if (phone === null) {
    return Response.json({ error: "`contact` has no usable phone number" }, { status: 422 });
  }
  const given = first(contact, ["first_name", "firstName", "given_name"]);
  const family = first(contact, ["last_name", "lastName", "family_name"]);
  const name = first(contact, ["name", "full_name", "fullName"]) ?? [given, family].filter(Boolean).join(" ");
  const email = first(contact, ["email", "email_address", "mail"])?.toLowerCase() ?? null;
  return Response.json({ name: tidy(name), phone, email: isEmail(email) ? email : null, tags: tags(contact.tags) });
}

function first(contact, keys) {
  for (const key of keys) {
    const value = contact[key];
    if (typeof value === "string" && value.trim()) {
      return value.trim();
    }
    if (typeof value === "number") {
      return String(value);
    }
  }
  return undefined;
}

// E.164: a plus sign and 8 to 15 digits.
function normalPhone(text, countryCode) {
  if (text === undefined) {
    return null;
  }
  let digits = text.replace(/\D/g, "");
  if (!text.startsWith("+")) {
    if (digits.startsWith("00")) {
      digits = digits.slice(2);
    } else if (/^[1-9]\d{0,2}$/.test(countryCode ?? "")) {
      digits = countryCode + digits.replace(/^0/, "");
    }
  }
  return /^[1-9]\d{7,14}$/.test(digits) ? `+${digits}` : null;
}

function tidy(name) {
  const words = (name ?? "").split(/\s+/).filter(Boolean);
  return words.length > 0 ? words.join(" ") : null;
}

function isEmail(text) {
  return text !== null && /^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(text);
}

function tags(value) {
  const list = Array.isArray(value) ? value : typeof value === "string" ? value.split(/[,;]/) : [];
  return [...new Set(list.map((tag) => String(tag).trim().toLowerCase()).filter(Boolean))].sort();
}
