// An Express app between a widget and Stepgraph: chat, stream, upload, and a receiver of documents' progress.

import { randomUUID } from "node:crypto";
import type { AddressInfo } from "node:net";
import express, { type NextFunction, type Request, type Response } from "express";
import multer from "multer";
import { BackendError, call, open, type Settings } from "./client.js";

const UPLOAD_BYTES_MAX = 10 * 1024 * 1024;
const PROGRESS_MAX = 1_000;
/** What each code of the server becomes for the widget; all others are "Processing error", 500. */
const STATUS_BY_CODE: Record<string, number> = {
  INVALID_API_KEY: 401,
  RATE_LIMITED: 429,
  QUOTA_EXCEEDED: 402,
  TIMEOUT: 504,
  SERVICE_UNAVAILABLE: 503,
};

function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

const settings: Settings = { baseUrl: setting("PYTHON_BACKEND_URL"), secret: setting("INTERNAL_API_SECRET") };
const clientId = setting("CLIENT_ID");
const progress: unknown[] = [];

const app = express();
const upload = multer({ storage: multer.memoryStorage(), limits: { fileSize: UPLOAD_BYTES_MAX } });
app.use(express.json());

const chatBody = (request: Request) => ({
  clientId,
  message: request.body.message,
  sessionId: request.body.sessionId,
  metadata: { userAgent: request.get("user-agent") },
});

app.post("/api/chat", async (request, response) => {
  response.json(await call(settings, "/chat", "POST", chatBody(request)));
});

app.post("/api/chat/stream", async (request, response) => {
  response.writeHead(200, {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
  });
  response.flushHeaders();
  try {
    const decoder = new TextDecoder();
    for await (const bytes of await open(settings, "/chat/stream", chatBody(request))) {
      response.write(decoder.decode(bytes, { stream: true }));
    }
  } catch (error) {
    const code = error instanceof BackendError ? error.code : "UNKNOWN_ERROR";
    response.write(`event: error\ndata: ${JSON.stringify({ code, message: "Processing error" })}\n\n`);
  }
  response.end();
});

app.post("/api/documents", upload.single("file"), async (request, response) => {
  const file = request.file;
  if (!file) {
    response.status(400).json({ error: "send one file in the field `file`" });
    return;
  }
  const body = {
    documentId: randomUUID(),
    clientId,
    fileData: file.buffer.toString("base64"),
    fileType: file.originalname.split(".").pop()?.toLowerCase(),
    originalName: file.originalname,
  };
  response.json(await call(settings, "/process-document", "POST", body));
});

app.get("/api/documents/:id/status", async (request, response) => {
  response.json(await call(settings, `/documents/${encodeURIComponent(request.params.id)}/status`, "GET"));
});

app.post("/api/internal/document-progress", (request, response) => {
  if (request.get("X-Internal-Secret") !== settings.secret) {
    response.status(401).end();
    return;
  }
  progress.push(request.body);
  if (progress.length > PROGRESS_MAX) progress.shift();
  response.status(204).end();
});

app.get("/api/progress", (_request, response) => {
  response.json(progress);
});

app.get("/", (_request, response) => {
  response.sendFile("widget.html", { root: new URL("../public", import.meta.url).pathname });
});

app.use((error: unknown, _request: Request, response: Response, next: NextFunction) => {
  if (response.headersSent) return next(error);
  const code = error instanceof BackendError ? error.code : "UNKNOWN_ERROR";
  response.status(STATUS_BY_CODE[code] ?? 500).json({ error: code, retryAfter: code === "RATE_LIMITED" ? 60 : undefined });
});

const server = app.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
