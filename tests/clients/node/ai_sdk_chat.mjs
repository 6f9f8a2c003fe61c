// Vercel's AI SDK: with its provider for servers like OpenAI's, or OpenAI's own, which speaks the Responses API.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, Output, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const written = new Function("createOpenAICompatible", "createOpenAI", `return ${process.env.WRITTEN}`);
const providerOptions = { openai: JSON.parse(process.env.OPTIONS ?? "{}") };
const common = { model: written(createOpenAICompatible, createOpenAI), maxRetries: 0, providerOptions };
const [mode, ...texts] = process.argv.slice(2);

function fail({ error }) {
  throw error;
}

const withWeather = (calls) => ({
  ...common,
  stopWhen: stepCountIs(5),
  tools: {
    get_weather: tool({
      description: "The weather of a city",
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => {
        calls.push(city);
        return `7 degrees in ${city}`;
      },
    }),
  },
});

const schema = z.object({ city: z.string(), degrees: z.number().int() });

async function run(texts, call, more = {}) {
  const calls = [];
  const messages = [];
  let answer;
  for (const content of texts) {
    messages.push({ role: "user", content });
    const error = call === streamText ? { onError: fail } : {};
    answer = await call({ ...withWeather(calls), ...more, ...error, messages });
    messages.push(...(await answer.response).messages);
  }
  return { text: await answer.text, calls, object: more.output && (await answer.output) };
}

const modes = {
  async chat(...texts) {
    const messages = [];
    const answers = [];
    for (const [number, content] of texts.entries()) {
      messages.push({ role: "user", content });
      const answer = number % 2 ? await generateText({ ...common, messages }) : streamText({ ...common, messages });
      answers.push(await answer.text);
      messages.push(...(await answer.response).messages);
    }
    return { answers };
  },

  async stream(prompt) {
    const stream = streamText({ ...common, prompt, onError: fail });
    let text = "";
    let deltas = 0;
    for await (const delta of stream.textStream) {
      text += delta;
      deltas += 1;
    }
    const reasoning = await stream.reasoningText;
    const usage = await stream.usage;
    return { text, deltas, reasoning, finish: await stream.finishReason, tokens: usage.outputTokens };
  },

  tools: (...texts) => run(texts, generateText),

  stream_tools: (...texts) => run(texts, streamText),

  async document(...texts) {
    const messages = [];
    let object;
    for (const content of texts) {
      messages.push({ role: "user", content });
      ({ object } = await generateObject({ ...common, schema, messages }));
      messages.push({ role: "assistant", content: JSON.stringify(object) });
    }
    return { object };
  },

  async stream_document(...texts) {
    const messages = [];
    let object;
    for (const content of texts) {
      messages.push({ role: "user", content });
      const stream = streamObject({ ...common, schema, messages, onError: fail });
      for await (const part of stream.partialObjectStream) object = part;
      messages.push({ role: "assistant", content: JSON.stringify(object) });
    }
    return { object };
  },

  document_by_tools: (text) => run([text], generateText, { output: Output.object({ schema }) }),

  async look(text, image, pdf) {
    const content = [
      { type: "text", text },
      { type: "image", image, mediaType: "image/png" },
      { type: "file", data: pdf, mediaType: "application/pdf", filename: "a.pdf" },
    ];
    const answer = await generateText({ ...common, messages: [{ role: "user", content }] });
    return { text: answer.text };
  },
};

console.log(JSON.stringify(await modes[mode](...texts)));
