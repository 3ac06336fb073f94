// The client of the workflow server: 30 seconds for a whole call, two more tries one second apart where the server failed.

const TOTAL_MS = 30_000;
const RETRIES = 2;
const RETRY_AFTER_MS = 1_000;

export interface Settings {
  baseUrl: string;
  secret: string;
}

/** What the server refused or could not do, in its own code. */
export class BackendError extends Error {
  constructor(
    readonly code: string,
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function headers(settings: Settings): Record<string, string> {
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (settings.secret) headers["X-Internal-Secret"] = settings.secret;
  return headers;
}

async function refusal(answer: Response): Promise<BackendError> {
  const body = (await answer.json().catch(() => null)) as { error?: { code?: string; message?: string } } | null;
  const code = body?.error?.code ?? "UNKNOWN_ERROR";
  return new BackendError(code, answer.status, body?.error?.message ?? `the server answered ${answer.status}`);
}

/** One call with its tries, all inside one time limit. A refusal is never tried again. */
export async function call(settings: Settings, path: string, method: string, body?: unknown): Promise<unknown> {
  const signal = AbortSignal.timeout(TOTAL_MS);
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await fetch(settings.baseUrl + path, {
        method,
        headers: headers(settings),
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
      });
      if (answer.ok) return await answer.json();
      const error = await refusal(answer);
      if (answer.status < 500 || attempt === RETRIES) throw error;
    } catch (error) {
      if (error instanceof BackendError) throw error;
      if (attempt === RETRIES || signal.aborted) {
        throw new BackendError("SERVICE_UNAVAILABLE", 503, "the server cannot be reached");
      }
    }
    await wait(RETRY_AFTER_MS);
  }
}

/** A stream is opened once: what was said cannot be taken back. */
export async function open(settings: Settings, path: string, body: unknown): Promise<ReadableStream<Uint8Array>> {
  const answer = await fetch(settings.baseUrl + path, {
    method: "POST",
    headers: { ...headers(settings), Accept: "text/event-stream" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(TOTAL_MS),
  });
  if (!answer.ok || !answer.body) throw await refusal(answer);
  return answer.body;
}
