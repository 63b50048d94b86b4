// What Kapso hands to a function. A few lines of our own, so that editors and `tsc` know the shapes; nothing of it is uploaded.
// Add your secrets to `Env`: they arrive as its properties.

interface KV {
  get(key: string): Promise<string | null>;
  put(key: string, value: string, options?: { expirationTtl?: number; expiration?: number }): Promise<void>;
  delete(key: string): Promise<void>;
  list(options?: { prefix?: string; limit?: number; cursor?: string }): Promise<{
    keys: { name: string; expiration?: number }[];
    list_complete: boolean;
    cursor?: string;
  }>;
}

interface Env {
  KV?: KV;
}

interface ExecutionContext {
  vars?: Record<string, unknown>;
  system?: Record<string, unknown>;
  context?: Record<string, unknown>;
}

/** A workflow's function node. Answer `{"vars": {…}}` to set variables of the workflow. */
interface WorkflowCall {
  execution_context: ExecutionContext;
  flow_info?: { id?: string; name?: string; step_id?: string };
}

/** A workflow's decide node. Answer `{"next_edge": "…"}`, one of `available_edges`. */
interface DecideCall extends WorkflowCall {
  available_edges: string[];
}

/** An agent's tool. `input` is what the model filled in, by the tool's own schema: check it like any stranger's. */
interface AgentToolCall<Input = Record<string, unknown>> {
  input: Partial<Input>;
  execution_context?: ExecutionContext;
}
