// Asks a running server: node src/example.ts [--model ROUTE] chat|stream|embed TEXT…
import { parseArgs } from "node:util";
import * as grpc from "@grpc/grpc-js";
import type { ChatRequest } from "../generated/modelrouter/v1/ChatRequest.ts";
import type { ChatResponse__Output } from "../generated/modelrouter/v1/ChatResponse.ts";
import type { EmbedResponse__Output } from "../generated/modelrouter/v1/EmbedResponse.ts";
import type { StreamChatResponse__Output } from "../generated/modelrouter/v1/StreamChatResponse.ts";
import { type Client, connect } from "./client.ts";

const target = process.env.MODELROUTER_TARGET ?? "127.0.0.1:50051";

function deadline(seconds: number): grpc.CallOptions {
  return { deadline: Date.now() + seconds * 1000 };
}

function question(model: string, text: string): ChatRequest {
  return { model, messages: [{ role: "ROLE_USER", content: [{ text }] }] };
}

async function chat(client: Client, model: string, text: string): Promise<void> {
  const answer = await new Promise<ChatResponse__Output>((resolve, reject) => {
    client.chat(question(model, text), deadline(120), (error, response) => (error ? reject(error) : resolve(response!)));
  });
  console.log(answer.message?.content.map((part) => part.text ?? "").join(""));
  console.error(`${answer.route?.target} used ${answer.usage?.outputTokens} tokens`);
}

async function stream(client: Client, model: string, text: string): Promise<void> {
  const request = { ...question(model, text), routing: { streamRecovery: "STREAM_RECOVERY_RESTART" } } as const;
  let finished = false;
  const events: AsyncIterable<StreamChatResponse__Output> = client.streamChat(request, deadline(600));
  for await (const event of events) {
    switch (event.event) {
      case "started":
        console.error(`${event.started?.route?.target} answers`);
        break;
      case "delta":
        process.stdout.write(event.delta?.text ?? "");
        break;
      case "reset":
        // What was written so far is void: another target starts over.
        process.stdout.write(event.reset?.resumed ? "" : `\n[${event.reset?.route?.target} starts over]\n`);
        break;
      case "finished":
        finished = true;
        console.log();
        console.error(`${event.finished?.route?.target} finished: ${event.finished?.finishReason}`);
        break;
    }
  }
  if (!finished) {
    throw new Error("the stream ended before the answer was complete");
  }
}

async function embed(client: Client, model: string, texts: string[]): Promise<void> {
  const request = { model, inputs: texts.map((text) => ({ text })) };
  const answer = await new Promise<EmbedResponse__Output>((resolve, reject) => {
    client.embed(request, deadline(120), (error, response) => (error ? reject(error) : resolve(response!)));
  });
  for (const [index, embedding] of answer.embeddings.entries()) {
    console.log(`${texts[index]}: ${answer.dimensions} numbers, ${embedding.values.slice(0, 4).join(" ")} …`);
  }
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({ options: { model: { type: "string" } }, allowPositionals: true });
  const [command, ...words] = positionals;
  const calls: Record<string, (client: Client) => Promise<void>> = {
    chat: (client) => chat(client, values.model ?? "chat", words.join(" ")),
    stream: (client) => stream(client, values.model ?? "chat", words.join(" ")),
    embed: (client) => embed(client, values.model ?? "embed", words),
  };
  const call = calls[command ?? ""];
  if (call === undefined || words.length === 0) {
    console.error("usage: node src/example.ts [--model ROUTE] chat|stream|embed TEXT…");
    return 2;
  }
  const client = connect(target);
  try {
    await call(client);
    return 0;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    return 1;
  } finally {
    client.close();
  }
}

process.exitCode = await main();
