// A workflow's function node: writes the confirmation of a payment, in the customer's language, into the workflow's variables.
//
// It reads the variables `amount_cents`, `currency` and `language`, and sets `confirmation`.

import { readCall, refuse } from "./lib/answers";
import { format, isCurrency } from "./lib/money";

enum Language {
  English = "en",
  Spanish = "es",
}

const TEXTS: Record<Language, (amount: string) => string> = {
  [Language.English]: (amount) => `We received your payment of ${amount}. Thank you!`,
  [Language.Spanish]: (amount) => `Recibimos tu pago de ${amount}. ¡Gracias!`,
};

export default {
  async fetch(request: Request, _env: Env): Promise<Response> {
    const call = await readCall<WorkflowCall>(request);
    const vars = call.execution_context?.vars ?? {};
    const { amount_cents: cents, currency } = vars;
    if (typeof cents !== "number" || !Number.isSafeInteger(cents) || cents <= 0 || !isCurrency(currency)) {
      return refuse("the variables `amount_cents` and `currency` must hold a payment");
    }
    const language = vars.language === Language.Spanish ? Language.Spanish : Language.English;
    return Response.json({ vars: { confirmation: TEXTS[language](format(cents, currency)) } });
  },
};
